"""Measure how far two lists of RLEs agree; same as `sam2-amg compare`. See `python compare_rle_lists.py --help`."""

from __future__ import annotations

import sys

from sam2_amg.cli.main import run

if __name__ == "__main__":
    sys.exit(run("compare", sys.argv[1:]))
