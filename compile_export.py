"""Write ahead-of-time packages, as `sam2-amg export` does, from which a server starts in seconds: see --help."""

from __future__ import annotations

import sys

from sam2_amg.cli.main import run

if __name__ == "__main__":
    sys.exit(run("export", sys.argv[1:]))
