"""Serve SAM 2.1's automatic mask generator over HTTP: `python server.py --help`."""

from __future__ import annotations

import sys

from sam2_amg.cli import parse, run


def main(arguments: list[str]) -> None:
    """Starts the server that the command line asks for, and runs it until a signal drains it. Raises StartupError."""
    config = parse(arguments)
    from sam2_amg.server.startup import serve  # torch takes seconds, for which --help and a wrong flag need not wait

    serve(config)


if __name__ == "__main__":
    run("server.py", lambda: main(sys.argv[1:]))
