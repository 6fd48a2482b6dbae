"""The command line of `compare` and compare_rle_lists.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from sam2_amg.cli.arguments import Parser, path_of
from sam2_amg.errors import StartupError
from sam2_amg.process.program import prefix_for

_DESCRIPTION = """\
Compare two lists of masks of the same images. A (the reference) and B (the candidate) are files with one JSON line of
/upload_rle per image (compressed if the name ends in .gz), or folders of .json files with the same names. If an empty
line follows every answer, as `curl -w "\\n"` writes them, these lines do not count, in A, in B or in both. Any other
empty line is an image without an answer: the comparison names them all and ends with status 2.
"""
_EPILOG = """\
The published metric pairs masks by area rank and skips images whose mask counts differ. The matched metric counts every
image: it matches masks one to one by IoU, and a mask without a partner counts 0. At each IoU threshold, precision is
the share of B's masks that are matched, recall the share of A's.
"""


def main(arguments: Sequence[str]) -> int:
    """Prints the figures; returns the exit status, 1 if the matched mIoU is below --min_miou.

    Raises StartupError if the lists cannot be compared.
    """
    args = build_parser().parse(arguments)
    from sam2_amg.agreement.lists import UnusableList, compare, report  # imports numpy and scipy; --help does not wait

    try:
        figures = compare(args.a, args.b)
    except UnusableList as error:
        raise StartupError(str(error)) from error
    print(report(figures))
    if args.json:
        _write(args.json, figures)
    if args.min_miou is not None and figures["matched_miou"] < args.min_miou:
        print(f"matched mIoU {figures['matched_miou']:.6f} is below --min_miou {args.min_miou}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("compare"), _DESCRIPTION, _EPILOG)
    parser.add_argument("a", metavar="A", type=path_of, help="the reference list, for example baseline's")
    parser.add_argument("b", metavar="B", type=path_of, help="the list to compare with it")
    parser.add_argument("--json", metavar="FILE", type=path_of, help="also write the figures to FILE")
    text = "exit with status 1 if the matched mIoU is below X"
    parser.add_argument("--min_miou", metavar="X", type=share, help=text)
    return parser


def share(text: str) -> float:
    """Parses a number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def _write(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise StartupError(f"--json {path}: {error.strerror}") from error
