"""`python -m sam2_amg`: same as the command `sam2-amg`."""

from __future__ import annotations

import sys

from sam2_amg.signals import end_on_signals

end_on_signals()  # before anything that takes time to import

from sam2_amg.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
