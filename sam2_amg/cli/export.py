"""`export`, or compile_export.py: its command line -> packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sam2_amg.cli.arguments import Parser, add_batch_size, add_device, add_model, device_of, model_of
from sam2_amg.config import ExportConfig, GeneratorConfig, Mode, require_batch_size
from sam2_amg.errors import StartupError
from sam2_amg.program import command_for, prefix_for

_DESCRIPTION = """\
Compile the network of --fast, or --fast --furious, ahead of time, for this machine's device, and write it as packages.

  {export} checkpoints large --fast --output packages
  {serve} checkpoints large --fast --load_exported packages

Packages are native code: load only those that you made yourself. They hold the weights, and fit one checkpoint, one
kind of GPU or processor, and one version of torch; a server refuses others. They take any image; those for a
GPU take as many points at a time as a grid has, up to 256 (--furious: 1,024), and a server with another grid may need
others.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes the packages that the command line asks for; answers the exit status. Raises StartupError."""
    config = parse(arguments)
    from sam2_amg.export import export  # torch takes seconds, for which --help need not wait

    export(config)
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    commands = {name: command_for(name) for name in ("export", "serve")}
    parser = Parser(prefix_for("export"), _DESCRIPTION.format(**commands))
    add_model(parser)
    parser.add_argument("--fast", action="store_true", help="the mode to compile")
    parser.add_argument("--furious", action="store_true", help="with --fast, on a CUDA GPU: compile that mode instead")
    add_batch_size(parser)
    text = "the server's grid: on a GPU, packages are for so many points at a time (default %(default)s)"
    side = GeneratorConfig.points_per_side
    parser.add_argument("--points_per_side", type=int, default=side, metavar="N", help=text)
    add_device(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder for the packages")
    return parser


def parse(arguments: Sequence[str]) -> ExportConfig:
    """The configuration that a command line asks for. Raises StartupError; exits where --help is asked for."""
    args = build_parser().parse(arguments)
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
