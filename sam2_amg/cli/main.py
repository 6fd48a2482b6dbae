"""The console script `sam2-amg COMMAND ...`. Sets up the log, signals and error messages of each command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sam2_amg.cli import batch, compare, export, segment, serve, tune
from sam2_amg.cli.arguments import Parser
from sam2_amg.errors import StartupError
from sam2_amg.process.logs import flush_log, start_log
from sam2_amg.process.program import console, prefix_for
from sam2_amg.process.signals import end_on_signals
from sam2_amg.process.version import find_version


@dataclass(frozen=True)
class Command:
    """A command: its line in --help, and a function that takes its arguments and returns the exit status."""

    summary: str
    main: Callable[[Sequence[str]], int]


COMMANDS = {
    "serve": Command("segment images over HTTP", serve.main),
    "segment": Command("segment photographs in files, without a server", segment.main),
    "batch": Command("segment any number of photographs, and go on after an interruption", batch.main),
    "export": Command("compile a model ahead of time, so that a server starts in seconds", export.main),
    "tune": Command("find the fastest way to launch the kernels on this machine's GPU", tune.main),
    "compare": Command("measure how far two lists of masks agree", compare.main),
}


def main() -> int:
    """The console script; returns the exit status. Exits for --help and --version."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        return run(arguments[0], arguments[1:])
    try:
        build_parser().parse_args(arguments[:1])
    except StartupError as error:
        return _refuse(console(), error)
    raise AssertionError("the parser exits, or raises StartupError for an unknown command")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the arguments before a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    epilog = "\n".join(["commands:", *lines, "", f"For the flags of a command: {console()} COMMAND --help"])
    parser = Parser(console(), "SAM 2.1's automatic mask generator.", epilog)
    parser.usage = "%(prog)s [--help] [--version] COMMAND ..."
    version = f"sam2-amg {find_version()}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs a command with a log on standard error, and returns the exit status. Signals end it."""
    start_log()
    end_on_signals()
    return status_of(name, arguments)


def status_of(name: str, arguments: Sequence[str]) -> int:
    """Runs a command without setting up log and signals. A StartupError prints one line and gives status 2."""
    try:
        return COMMANDS[name].main(arguments)
    except StartupError as error:
        return _refuse(prefix_for(name), error)


def _refuse(prefix: str, error: StartupError) -> int:
    flush_log()
    print(f"{prefix}: error: {error}", file=sys.stderr)
    return 2
