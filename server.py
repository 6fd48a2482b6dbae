"""Serve SAM 2.1's automatic mask generator over HTTP: `python server.py --help`."""

from __future__ import annotations

import logging
import sys

from sam2_amg.cli import fail, parse
from sam2_amg.errors import StartupError
from sam2_amg.signals import end_on_signals


def main(arguments: list[str]) -> None:
    """Starts the server that the command line asks for, and runs it until a signal drains it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("torch").setLevel(logging.WARNING)  # it reports its caches when the process ends
    end_on_signals()
    try:
        config = parse(arguments)
        from sam2_amg.starting import serve  # torch takes seconds, for which --help and a wrong flag need not wait

        serve(config)
    except StartupError as error:
        fail(error)


if __name__ == "__main__":
    main(sys.argv[1:])
