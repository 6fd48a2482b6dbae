"""Measure how far two lists of RLEs agree; same as `sam2-amg compare`. See `python compare_rle_lists.py --help`."""

from __future__ import annotations

import sys

from sam2_amg.signals import end_on_signals

end_on_signals()  # before anything that takes time to import

from sam2_amg.cli.main import run  # noqa: E402

if __name__ == "__main__":
    sys.exit(run("compare", sys.argv[1:]))
