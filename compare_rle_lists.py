"""How far two lists of RLEs agree: `python compare_rle_lists.py --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import orjson

from sam2_amg.agreement_lists import UnusableList, compare, report

_DESCRIPTION = """\
Compare two lists of masks of the same images. A (the reference) and B (the candidate) are files with a line of
/upload_rle's JSON an image, compressed where they end in .gz, or folders of .json files with the same names.
"""
_EPILOG = """\
The published metric pairs masks by rank of area, and leaves out images whose mask count differs. The matched metric
counts every image: masks are matched one to one by IoU, and a mask without a partner counts 0. Precision is the share
of B's masks, recall the share of A's, that are matched at an IoU or better.
"""


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", type=Path, help="the reference list, a baseline's say")
    parser.add_argument("b", metavar="B", type=Path, help="the list to compare with it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument(
        "--min_miou", "--min-miou", metavar="X", type=share, help="exit with 1 where the matched mIoU is below X"
    )
    args = parser.parse_args()
    try:
        figures = compare(args.a, args.b)
    except UnusableList as error:
        print(f"compare_rle_lists.py: error: {error}", file=sys.stderr)
        return 2
    print(report(figures))
    if args.json:
        try:
            args.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            print(f"compare_rle_lists.py: error: --json {args.json}: {error.strerror}", file=sys.stderr)
            return 2
    if args.min_miou is not None and figures["matched_miou"] < args.min_miou:
        print(f"matched mIoU {figures['matched_miou']:.6f} is below --min_miou {args.min_miou}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
