"""Command lines -> configuration, of server.py and compile_export.py. Imports no torch, so that --help is instant."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from sam2_amg.config import (
    MOST_TOGETHER,
    ExportConfig,
    GeneratorConfig,
    Limits,
    Mode,
    ModelConfig,
    ServerConfig,
    require_batch_size,
    require_port,
)
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.network.model_types import MODEL_TYPES, ModelType, find_model_type
from sam2_amg.signals import end_on_signals

_DESCRIPTION = "Serve SAM 2.1's automatic mask generator: POST an image to /upload (PNG) or /upload_rle (JSON)."
_EPILOG = """\
examples:
  python server.py                                    the bundled demo model
  python server.py checkpoints large                  SAM 2.1 large, downloaded into checkpoints/ if missing
  python server.py checkpoints tiny --baseline        sam2's own generator, the reference for every other mode

Flags may be written with hyphens, too (--points-per-side).
"""

_EXPORT_DESCRIPTION = """\
Compile the network of --fast, or --fast --furious, ahead of time, for this machine's device, and write it as packages.

  python compile_export.py checkpoints large --fast --output packages
  python server.py checkpoints large --fast --load_exported packages

Packages are native code: load only those that you made yourself. They hold the weights, and fit one checkpoint, one
kind of GPU or processor, and one version of torch; a server refuses others. They take any image; those for a
GPU take as many points at a time as a grid has, up to 256 (--furious: 1,024), and a server with another grid may need
others.
"""

# name, type, help; the default is that of the dataclass
_GENERATOR_FLAGS = (
    ("points_per_side", int, "points along a side of the grid, so N x N prompts an image"),
    (
        "points_per_batch",
        int,
        "points decoded at a time (default: baseline 64; cpu 8; cuda ao 64, fast all up to 4096)",
    ),
    ("pred_iou_thresh", float, "least predicted IoU of a mask"),
    ("stability_score_thresh", float, "least stability score of a mask"),
    ("stability_score_offset", float, "by how much the stability score moves the threshold up and down"),
    ("box_nms_thresh", float, "box IoU above which the worse of two masks is dropped"),
    ("crop_n_layers", int, "layers of crops searched besides the whole image"),
    ("crop_nms_thresh", float, "the same as --box_nms_thresh, between crops"),
    ("crop_overlap_ratio", float, "overlap of the crops, as a fraction of the image's side"),
    ("crop_n_points_downscale_factor", int, "divides the points a side, once a layer"),
    ("mask_memory_mib", int, "most MiB of upsampled masks at a time, on cpu and not in baseline (default 32)"),
)
_LIMIT_FLAGS = (
    ("max_pixels", int, "largest image, in pixels"),
    ("max_body_mib", int, "largest request body, in MiB"),
    ("queue_size", int, "most requests in the server at a time; more get 503 and Retry-After"),
    ("request_timeout", float, "seconds until a request that has no answer gets 504"),
)


class Parser(argparse.ArgumentParser):
    """Errors of the command line are StartupErrors like any other."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls with what is wrong."""
        raise StartupError(f"{message}; see --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of server.py."""
    parser = Parser(
        prog="server.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser)
    modes = parser.add_argument_group("mode (default: ao, float32, the same masks as baseline, sooner)")
    modes.add_argument("--baseline", action="store_true", help="sam2's own generator, unchanged")
    modes.add_argument("--fast", action="store_true", help="ao, compiled; starts a minute or two later")
    text = "with --fast, on a CUDA GPU: products of float16, sooner still, and masks that differ a little"
    modes.add_argument("--furious", action="store_true", help=text)
    starts = parser.add_argument_group("quick starts")
    starts.add_argument(
        "--load_exported",
        type=Path,
        metavar="DIR",
        help="with --fast: packages of compile_export.py, run instead of compiling",
    )
    starts.add_argument(
        "--compile_cache", type=Path, metavar="DIR", help="where what was compiled is kept for the next start"
    )
    together = parser.add_argument_group("many requests")
    add_batch_size(together)
    place = parser.add_argument_group("where")
    place.add_argument("--host", default=ServerConfig.host, help="address to listen on (default %(default)s)")
    place.add_argument("--port", type=int, default=ServerConfig.port, help="default %(default)s; 0 takes a free one")
    add_device(place)
    _add_flags(parser.add_argument_group("generator"), _GENERATOR_FLAGS, GeneratorConfig())
    _add_flags(parser.add_argument_group("limits"), _LIMIT_FLAGS, Limits())
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the two arguments that name a model."""
    parser.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", nargs="?", type=Path, help="where checkpoints are")
    parser.add_argument("model_type", metavar="MODEL_TYPE", nargs="?", help=", ".join(MODEL_TYPES))


def model_of(args: argparse.Namespace) -> tuple[Path, ModelType]:
    """The folder and the type that a command line names, the demo's where it names none. Raises StartupError."""
    if (args.checkpoint_dir is None) != (args.model_type is None):
        raise StartupError(f"CHECKPOINT_DIR needs a MODEL_TYPE after it: {', '.join(MODEL_TYPES)}")
    return args.checkpoint_dir or DEMO_DIR, find_model_type(args.model_type or "demo")


def add_batch_size(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --batch_size."""
    text = (
        f"up to N images that wait at the same time are encoded together, N at most {MOST_TOGETHER}; with --fast each "
        "number is compiled, and takes room, by itself, and packages are made for one N (default %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=ModelConfig.batch_size, metavar="N", help=text)


def add_device(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --device, which `device_of` resolves."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto: cuda if there")


def _add_flags(group: argparse._ArgumentGroup, flags: Sequence[tuple], defaults: object) -> None:
    for name, kind, text in flags:
        default = getattr(defaults, name)
        if default is not None:
            text += f" (default {default:.4g})" if isinstance(default, float) else f" (default {default})"
        group.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=text)


def underscored(argument: str) -> str:
    """--points-per-side=8 -> --points_per_side=8"""
    name, equals, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument


def parse(arguments: Sequence[str]) -> ServerConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    args = build_parser().parse_args([underscored(argument) for argument in arguments])
    mode = _mode_of(args)
    directory, kind = model_of(args)
    if not mode.is_pipeline and args.mask_memory_mib is not None:
        raise StartupError("--mask_memory_mib contradicts --baseline, which does not know it; leave one of them out")
    if not mode.is_compiled and args.load_exported is not None:
        raise StartupError(f"--load_exported goes with --fast: there are no packages for mode {mode.value}")
    given = {key: value for key, value in vars(args).items() if value is not None}
    generator, limits = GeneratorConfig(**_only(GeneratorConfig, given)), Limits(**_only(Limits, given))
    require_batch_size(args.batch_size)
    require_port(args.port)
    device = device_of(args.device)  # last of all that is checked, for it takes seconds
    return ServerConfig(
        model=ModelConfig(directory, kind.name, mode, device, args.load_exported, args.batch_size),
        generator=generator,
        limits=limits,
        host=args.host,
        port=args.port,
        compile_cache=args.compile_cache,
    )


def parse_export(arguments: Sequence[str]) -> ExportConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    parser = Parser(
        prog="compile_export.py",
        description=_EXPORT_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("--fast", action="store_true", help="the mode to compile")
    parser.add_argument("--furious", action="store_true", help="with --fast, on a CUDA GPU: compile that mode instead")
    add_batch_size(parser)
    text = "the server's grid: on a GPU, packages are for so many points at a time (default %(default)s)"
    side = GeneratorConfig.points_per_side
    parser.add_argument("--points_per_side", type=int, default=side, metavar="N", help=text)
    add_device(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder for the packages")
    args = parser.parse_args([underscored(argument) for argument in arguments])
    directory, kind = model_of(args)
    if not args.fast:
        raise StartupError("give --fast, or --fast --furious: no other mode compiles anything")
    if args.output.exists():
        raise StartupError(f"--output {args.output} is there already; remove it, or give another folder")
    require_batch_size(args.batch_size)
    generator = GeneratorConfig(points_per_side=args.points_per_side)
    mode, device = Mode.FURIOUS if args.furious else Mode.FAST, device_of(args.device)  # which takes seconds
    mode.require_device(device)
    return ExportConfig(directory, kind.name, mode, device, args.output, generator, args.batch_size)


def _only(kind: type, values: dict[str, object]) -> dict:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _mode_of(args: argparse.Namespace) -> Mode:
    if args.baseline and (args.fast or args.furious):
        raise StartupError("--baseline contradicts --fast and --furious; give one or the other")
    if args.furious and not args.fast:
        raise StartupError("--furious goes with --fast: give both, or neither")
    if args.fast:
        return Mode.FURIOUS if args.furious else Mode.FAST
    return Mode.BASELINE if args.baseline else Mode.AO


def device_of(name: str) -> str:
    """A device's name, with `auto` resolved. Raises StartupError for one that is not there."""
    if name == "cpu":
        return name
    import torch  # takes seconds, for which --help and a wrong flag need not wait

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise StartupError("--device cuda: torch finds no CUDA device here; give --device cpu, or leave it out")
    if name == "auto":
        return "cuda" if there else "cpu"
    return name


def run(program: str, task: Callable[[], None]) -> None:
    """Runs what a program does, with its log on standard error. Signals end it; a StartupError is one line, and 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("torch").setLevel(logging.WARNING)  # it reports its caches when the process ends
    end_on_signals()
    try:
        task()
    except StartupError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
