"""The command line of `batch`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sam2_amg.cli.arguments import (
    Parser,
    add_batch_size,
    add_device,
    add_log_format,
    add_model_flag,
    add_replicas,
    device_of,
    model_of_flag,
    path_of,
    replicas_of,
)
from sam2_amg.cli.generator_flags import (
    FILTER_FLAGS,
    GENERATOR_FLAGS,
    STRETCH,
    add_flags,
    add_modes,
    mode_of,
    parameters_of,
)
from sam2_amg.config import GeneratorConfig, Limits, ModelConfig
from sam2_amg.errors import StartupError
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.process.program import command_for, prefix_for

if TYPE_CHECKING:
    from sam2_amg.batch.config import BatchConfig

_DESCRIPTION = """\
Segment everything in any number of photographs. A run that is killed goes on where it was when it is started again.

Photographs are cut into shards. Each shard becomes one file in OUT, which is there when it is whole.
"""
_EPILOG = """\
INPUT is a file, a folder with its subfolders, @paths.txt (a path a line), - (the same from standard input), or a tar
({{0000..0999}} expands). Each may be at s3:// or another address that fsspec knows, and so may OUT.

examples:
  {batch} photos --output masks
  {batch} --model checkpoints large --fast --furious photos --output masks --format parquet
  {batch} @paths.txt --output masks --shard $SLURM_ARRAY_TASK_ID/16
  {batch} s3://bucket/photos --output s3://bucket/masks
  {batch} photos --output masks --replicas 8
  {batch} photos --output masks --server http://127.0.0.1:5000 --server http://127.0.0.1:5001

Ctrl-C ends the run after the shard in hand; the second time it drops that shard. Ends with status 0, with 1 if an image
could not be read and --strict is given, with 2 if the run could not go on, with 130 after Ctrl-C and 143 after SIGTERM.
Flags also take hyphens (--shard-size).
"""
# of requests: --format means another thing here, and options of answers and points are of one photograph
_NO_PARAMETERS = ("format", "counts", "tolerance", "style", "opacity", "ids", "points", "point_grids")
_LIMITS = Limits(max_body_mib=256)  # which no client of a server sends
_LIMIT_FLAGS = (
    ("max_pixels", int, "largest image, in pixels"),
    ("max_body_mib", int, "largest file, in MiB"),
    ("decode_timeout", float, "seconds an image may take to be decoded"),
    ("max_decoded_mib", int, "memory of all images that are being decoded, in MiB"),
    ("decoders", int, "processes that decode images (default: one a core, at most 4)"),
)
FORMATS = ("jsonl", "parquet", "sa1b", "coco", "labelmap", "overlay")


def main(arguments: Sequence[str]) -> int:
    """Segments the photographs; returns the exit status. Raises StartupError."""
    use_one_heap()
    use_huge_pages()
    config = parse(arguments)
    from sam2_amg.batch.run import run_batch

    if config.replicas is None:
        return run_batch(config)
    from sam2_amg.replicas.shards import replicas_of_job

    return run_batch(config, replicas_of_job)


def share_of(text: str) -> tuple[int, int]:
    """The numbers of "i/N". Raises argparse.ArgumentTypeError."""
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/N, as in 0/16")
    return int(first), int(second)


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("batch"), _DESCRIPTION, _EPILOG.format(batch=command_for("batch")))
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="photographs, or where they are")
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="folder for the shards, made if it is missing"
    )
    add_model_flag(parser)
    add_device(parser)
    add_modes(parser)
    add_batch_size(parser)
    shards = parser.add_argument_group("shards")
    text = "what a shard is written as (default %(default)s)"
    shards.add_argument("--format", choices=FORMATS, default="jsonl", help=text)
    text = "with sa1b, labelmap and overlay: write a file an image instead of a tar a shard"
    shards.add_argument("--unpack", action="store_true", help=text)
    text = "photographs of a shard (default %(default)s); a tar is a shard by itself"
    shards.add_argument("--shard_size", type=int, default=1000, metavar="N", help=text)
    text = "make shards i, i + N, i + 2 N ... only, counted from 0: for N runs at once"
    shards.add_argument("--shard", type=share_of, default=(0, 1), metavar="i/N", help=text)
    text = "list the inputs again, and append what is new; by default the first run's list holds"
    shards.add_argument("--rescan", action="store_true", help=text)
    shards.add_argument("--dry_run", action="store_true", help="say what there is to do, and do nothing")
    shards.add_argument("--strict", action="store_true", help="end with status 1 if an image could not be read")
    add_replicas(parser.add_argument_group("several GPUs"))
    servers = parser.add_argument_group("running servers")
    text = "ask this server instead of loading a model; give it again for more servers"
    servers.add_argument("--server", action="append", default=[], metavar="URL", help=text)
    text = "a file with the servers' key"
    servers.add_argument("--api_key_file", type=path_of, metavar="FILE", help=text)
    add_log_format(parser)
    add_flags(parser.add_argument_group("masks that are left out"), FILTER_FLAGS)
    add_flags(parser.add_argument_group("generator"), GENERATOR_FLAGS, GeneratorConfig())
    reading = parser.add_argument_group("reading")
    choices, text = STRETCH
    reading.add_argument("--stretch", choices=choices, help=text)
    add_flags(reading, _LIMIT_FLAGS, _LIMITS)
    return parser


def _require_no_model(parser: Parser, args: argparse.Namespace) -> None:
    """Raises StartupError for a flag of the model, which servers have of their own."""
    for name in ("baseline", "fast", "furious", "load_exported", "compile_cache", "batch_size", "device"):
        if getattr(args, name) != parser.get_default(name):
            raise StartupError(f"--{name} contradicts --server, which has a model of its own; leave one of them out")


def parse(arguments: Sequence[str]) -> BatchConfig:
    """Command line -> configuration. Raises StartupError; exits for --help."""
    parser = build_parser()
    args = parser.parse(arguments)
    if args.server:
        _require_no_model(parser, args)
    mode = mode_of(args)
    folder, kind = model_of_flag(args)
    from sam2_amg.batch.config import BatchConfig  # takes a moment, for pydantic and NumPy

    replicas = replicas_of(args)
    parameters, memory = parameters_of(args, _NO_PARAMETERS)
    limits = {name: value for name, _, _ in _LIMIT_FLAGS if (value := getattr(args, name)) is not None}
    limits["max_held_mib"] = max(_LIMITS.max_held_mib, limits.get("max_body_mib", 0))  # which holds nothing here
    model = None
    if not args.server or args.model:
        model = ModelConfig(
            folder, kind.name, mode, device_of(args.device, replicas), args.load_exported, args.batch_size
        )
    return BatchConfig(
        inputs=tuple(args.inputs),
        output=args.output,
        model=model,
        parameters=parameters,
        generator=memory,
        limits=replace(_LIMITS, **limits),
        format=args.format,
        unpack=args.unpack,
        shard_size=args.shard_size,
        share=args.shard,
        servers=tuple(args.server),
        api_key_file=args.api_key_file,
        rescan=args.rescan,
        strict=args.strict,
        dry_run=args.dry_run,
        compile_cache=args.compile_cache,
        log_format=args.log_format,
        replicas=replicas,
    )
