"""The command line of `tune`."""

from __future__ import annotations

from collections.abc import Sequence

from sam2_amg.cli.arguments import Parser, add_device, device_of, path_of
from sam2_amg.errors import StartupError
from sam2_amg.process.program import command_for, prefix_for

_DESCRIPTION = """\
Find the launch configurations (tile sizes, warps, stages) with which the kernels of --fast and --fast --furious are
fastest on this machine's GPU, and keep them in a table for its next start. It takes two or three minutes.

  {tune}
  {serve} checkpoints large --fast

H100 and H200 need none: their table comes with this package. On other GPUs kernels have small tiles until there is a
table. Let nothing else use the GPU meanwhile.
"""


def main(arguments: Sequence[str]) -> int:
    """Writes the table; returns the exit status. Raises StartupError."""
    args = build_parser().parse(arguments)
    device = device_of(args.device)
    if device != "cuda":
        raise StartupError("tune measures a CUDA GPU, and there is none here; a CPU needs no table")
    from sam2_amg.tuning.table import make_table  # imports torch, which takes seconds; --help does not wait

    make_table(device, args.compile_cache)
    return 0


def build_parser() -> Parser:
    """The parser of this command line."""
    parser = Parser(prefix_for("tune"), _DESCRIPTION.format(tune=command_for("tune"), serve=command_for("serve")))
    add_device(parser)
    text = "folder for the table, the same as of the server (default: the user's cache folder)"
    parser.add_argument("--compile_cache", type=path_of, metavar="DIR", help=text)
    return parser
