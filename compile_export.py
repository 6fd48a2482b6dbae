"""Write ahead-of-time packages, with which a server starts in seconds; same as `sam2-amg export`. See --help."""

from __future__ import annotations

import sys

from sam2_amg.signals import end_on_signals

end_on_signals()  # before anything that takes time to import

from sam2_amg.cli.main import run  # noqa: E402

if __name__ == "__main__":
    sys.exit(run("export", sys.argv[1:]))
