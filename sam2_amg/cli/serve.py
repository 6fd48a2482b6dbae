"""`serve`, or server.py: its command line -> a server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sam2_amg.cli.arguments import Parser, add_batch_size, add_device, add_model, device_of, model_of
from sam2_amg.config import (
    GeneratorConfig,
    Limits,
    Mode,
    ModelConfig,
    ServerConfig,
    require_batch_size,
    require_port,
)
from sam2_amg.errors import StartupError
from sam2_amg.program import command_for, prefix_for

_DESCRIPTION = "Serve SAM 2.1's automatic mask generator: POST an image to /upload (PNG) or /upload_rle (JSON)."
_EPILOG = """\
examples:
  {serve}                                    the bundled demo model
  {serve} checkpoints large                  SAM 2.1 large, downloaded into checkpoints/ if missing
  {serve} checkpoints tiny --baseline        sam2's own generator, the reference for every other mode

Flags may be written with hyphens, too (--points-per-side).
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
    ("decode_timeout", float, "seconds until an image that is not decoded gets 504, or 503 where it waits"),
    ("max_decoded_mib", int, "most MiB of decoded pixels, and of what decoders need besides, of all requests"),
    ("decoders", int, "processes that decode images (default: one a core, at most 4)"),
)


def main(arguments: Sequence[str]) -> int:
    """Starts the server that the command line asks for, and runs it until a signal drains it; answers the exit status.
    Raises StartupError."""
    config = parse(arguments)
    from sam2_amg.server.startup import serve  # torch takes seconds, for which --help and a wrong flag need not wait

    serve(config)
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("serve"), _DESCRIPTION, _EPILOG.format(serve=command_for("serve")))
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
        help=f"with --fast: packages of {command_for('export')}, run instead of compiling",
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


def _add_flags(group: argparse._ArgumentGroup, flags: Sequence[tuple], defaults: object) -> None:
    for name, kind, text in flags:
        default = getattr(defaults, name)
        if default is not None:
            text += f" (default {default:.4g})" if isinstance(default, float) else f" (default {default})"
        group.add_argument(f"--{name}", type=kind, metavar="N" if kind is int else "X", help=text)


def parse(arguments: Sequence[str]) -> ServerConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    args = build_parser().parse(arguments)
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
