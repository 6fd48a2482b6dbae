"""`python -m sam2_amg`: same as the command `sam2-amg`."""

from __future__ import annotations

import sys

from sam2_amg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
