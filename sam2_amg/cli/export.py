"""The command line of `export` and compile_export.py."""

from __future__ import annotations

from collections.abc import Sequence

from sam2_amg.cli.arguments import Parser, add_batch_size, add_device, add_model, device_of, model_of, path_of
from sam2_amg.config import ExportConfig, GeneratorConfig, Mode, require_batch_size
from sam2_amg.errors import StartupError
from sam2_amg.process.program import command_for, prefix_for

_DESCRIPTION = """\
Compile the network of --fast or --fast --furious ahead of time, for this machine's device, and write it as packages.

  {export} checkpoints large --fast --output packages
  {serve} checkpoints large --fast --load_exported packages

Packages are native code: load only those that you made yourself. They contain the weights. They fit one checkpoint, one
kind of GPU or processor, and one version of torch; a server refuses any others. They take images of any size. Packages
for a GPU take a fixed number of points at a time, at most 256 (--furious: 1,024), chosen for --points_per_side; a
server with another grid may need other packages.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes the packages; returns the exit status. Raises StartupError."""
    config = parse(arguments)
    from sam2_amg.export import export  # imports torch, which takes seconds; --help does not wait

    export(config)
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    commands = {name: command_for(name) for name in ("export", "serve")}
    parser = Parser(prefix_for("export"), _DESCRIPTION.format(**commands))
    add_model(parser)
    parser.add_argument("--fast", action="store_true", help="compile mode fast (required)")
    parser.add_argument("--furious", action="store_true", help="with --fast, on a CUDA GPU: compile furious instead")
    add_batch_size(parser)
    text = "the server's --points_per_side; on a GPU it sets how many points packages take (default %(default)s)"
    side = GeneratorConfig.points_per_side
    parser.add_argument("--points_per_side", type=int, default=side, metavar="N", help=text)
    add_device(parser)
    parser.add_argument("--output", type=path_of, required=True, metavar="DIR", help="a new folder for the packages")
    return parser


def parse(arguments: Sequence[str]) -> ExportConfig:
    """Command line -> configuration. Raises StartupError; exits for --help."""
    args = build_parser().parse(arguments)
    directory, kind = model_of(args)
    if not args.fast:
        raise StartupError("give --fast, or --fast --furious: the other modes compile nothing")
    if args.output.exists():
        raise StartupError(f"--output {args.output} already exists; remove it, or give another folder")
    require_batch_size(args.batch_size)
    generator = GeneratorConfig(points_per_side=args.points_per_side)
    mode, device = Mode.FURIOUS if args.furious else Mode.FAST, device_of(args.device)  # last: it takes seconds
    mode.require_device(device)
    return ExportConfig(directory, kind.name, mode, device, args.output, generator, args.batch_size)
