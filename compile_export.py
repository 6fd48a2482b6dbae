"""Write ahead-of-time packages of --fast (and --furious), from which a server starts in seconds: see --help."""

from __future__ import annotations

import sys

from sam2_amg.cli import parse_export, run


def main(arguments: list[str]) -> None:
    """Writes the packages that the command line asks for. Raises StartupError."""
    config = parse_export(arguments)
    from sam2_amg.export import export  # torch takes seconds, for which --help need not wait

    export(config)


if __name__ == "__main__":
    run("compile_export.py", lambda: main(sys.argv[1:]))
