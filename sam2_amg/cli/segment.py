"""The command line of `segment`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sam2_amg.cli.arguments import Parser, add_device, add_model_flag, device_of, model_of_flag, path_of
from sam2_amg.cli.generator_flags import (
    FILTER_FLAGS,
    GENERATOR_FLAGS,
    STRETCH,
    add_flags,
    add_modes,
    mode_of,
    parameters_of,
)
from sam2_amg.cli.targets import FORMATS_BY_SUFFIX, STDOUT, format_of, targets_of
from sam2_amg.config import GeneratorConfig, Limits, ModelConfig
from sam2_amg.pipeline.host_memory import use_huge_pages
from sam2_amg.process.program import command_for, prefix_for

if TYPE_CHECKING:
    from sam2_amg.segment_files import SegmentConfig

_DESCRIPTION = """\
Segment everything in photographs, and write the masks to files, as the server answers them.

What is written depends on the name after -o: photo.json gets sam2's records, photo.png the photograph with its masks
drawn on it, photo.npz the masks for NumPy. --format gives any other. With several photographs, -o is a folder.
"""
_EPILOG = """\
examples:
  {segment} photo.jpg -o masks.json
  {segment} photo.jpg -o masks.png --points_per_side 64 --style outline
  {segment} photos/*.jpg -o masks --format coco --model checkpoints large --fast
  {segment} photo.jpg -o - --format rle | jq length

Ends with status 0, with 1 if a photograph could not be read or its masks not written, with 2 if nothing was begun.
Flags also take hyphens (--points-per-side).
"""
FORMATS = ("rle", "records", "coco", "polygons", "labelmap", "npz", "png")


def json_of(text: str) -> Any:
    """The value of JSON. Raises argparse.ArgumentTypeError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON") from error


_CHOICES = {
    "counts": (("compressed", "uncompressed"), "run lengths of rle, records and coco"),
    "style": (("fill", "outline", "boxes"), "how png shows masks"),
    "stretch": STRETCH,
}
_FORMAT_FLAGS = (
    ("tolerance", float, "pixels by which polygons may deviate from the edges of masks (default 0)"),
    ("opacity", float, "opacity of png's colours, from 0 to 1"),
    ("ids", bool, "write the number of each mask into png"),
)
_POINT_FLAGS = (
    ("points", json_of, "points in pixels of the upright photograph, instead of the grid: [[x, y], ...]"),
    ("point_grids", json_of, "a grid of points from 0 to 1 for each crop layer: [[[x, y], ...], ...]"),
)


def main(arguments: Sequence[str]) -> int:
    """Segments the photographs; returns the exit status. Raises StartupError."""
    config = parse(arguments)
    use_huge_pages()
    from sam2_amg.segment_files import segment_files

    return segment_files(config)


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("segment"), _DESCRIPTION, _EPILOG.format(segment=command_for("segment")))
    parser.add_argument("photos", metavar="PHOTO", nargs="+", type=path_of, help="an image file")
    text = f"file for the masks ({', '.join(FORMATS_BY_SUFFIX)}), a folder, or {STDOUT} for standard output"
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=text)
    add_model_flag(parser)
    add_device(parser)
    add_modes(parser)
    form = parser.add_argument_group("format")
    form.add_argument("--format", choices=FORMATS, help="what is written (default: by the name after -o)")
    for name, (choices, text) in _CHOICES.items():
        form.add_argument(f"--{name}", choices=choices, help=text)
    add_flags(form, _FORMAT_FLAGS)
    add_flags(parser.add_argument_group("masks that are left out"), FILTER_FLAGS)
    generator = parser.add_argument_group("generator")
    add_flags(generator, GENERATOR_FLAGS, GeneratorConfig())
    add_flags(generator, _POINT_FLAGS, GeneratorConfig())
    add_flags(parser.add_argument_group("limits"), (("max_pixels", int, "largest image, in pixels"),), Limits())
    return parser


def parse(arguments: Sequence[str]) -> SegmentConfig:
    """Command line -> configuration. Raises StartupError; exits for --help."""
    args = build_parser().parse(arguments)
    mode = mode_of(args)
    folder, kind = model_of_flag(args)
    format = args.format or format_of(args.output, args.photos)
    from sam2_amg.segment_files import SegmentConfig  # takes a moment, for pydantic and NumPy

    parameters, memory = parameters_of(args)
    limits = Limits() if args.max_pixels is None else Limits(max_pixels=args.max_pixels)
    options = parameters.options(format)
    targets = targets_of(args.photos, args.output, format)
    model = ModelConfig(folder, kind.name, mode, device_of(args.device), args.load_exported)
    return SegmentConfig(targets, model, format, parameters, options, memory, limits, args.compile_cache)
