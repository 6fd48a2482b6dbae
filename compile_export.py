"""Write ahead-of-time packages, with which a server starts in seconds; same as `sam2-amg export`. See --help."""

from __future__ import annotations

import sys

from sam2_amg.__main__ import start

if __name__ == "__main__":
    sys.exit(start("export"))
