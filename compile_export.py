"""Write ahead-of-time packages, with which a server starts in seconds; same as `sam2-amg export`. See --help."""

from __future__ import annotations

import sys

from sam2_amg.cli.main import run

if __name__ == "__main__":
    sys.exit(run("export", sys.argv[1:]))
