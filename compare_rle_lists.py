"""Measure how far two lists of RLEs agree; same as `sam2-amg compare`. See `python compare_rle_lists.py --help`."""

from __future__ import annotations

import sys

from sam2_amg.__main__ import start

if __name__ == "__main__":
    sys.exit(start("compare"))
