"""Write ahead-of-time packages of --fast (and --furious), from which a server starts in seconds: see --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sam2_amg.cli import Parser, add_batch_size, add_device, add_model, device_of, model_of, run, underscored
from sam2_amg.config import ExportConfig, GeneratorConfig, Mode, require_batch_size
from sam2_amg.errors import StartupError

_DESCRIPTION = """\
Compile the network of --fast, or --fast --furious, ahead of time, for this machine's device, and write it as packages.

  python compile_export.py checkpoints large --fast --output packages
  python server.py checkpoints large --fast --load_exported packages

Packages are native code: load only those that you made yourself. They hold the weights, and fit one checkpoint, one
kind of GPU or processor, and one version of torch; a server refuses others. They take any image; those of --furious
take as many points at a time as a grid has, up to 1,024, and a server with another grid may need others.
"""


def parse(arguments: Sequence[str]) -> ExportConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    parser = Parser(
        prog="compile_export.py",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser)
    parser.add_argument("--fast", action="store_true", help="the mode to compile")
    parser.add_argument("--furious", action="store_true", help="with --fast, on a CUDA GPU: compile that mode instead")
    add_batch_size(parser)
    text = "the server's grid: with --furious, packages are for so many points at a time (default %(default)s)"
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


def main(arguments: list[str]) -> None:
    """Writes the packages that the command line asks for. Raises StartupError."""
    config = parse(arguments)
    from sam2_amg.packaging import export  # torch takes seconds, for which --help need not wait

    export(config)


if __name__ == "__main__":
    run("compile_export.py", lambda: main(sys.argv[1:]))
