"""`python -m sam2_amg` is the command `sam2-amg`; the scripts at the top level start here, too."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from sam2_amg.process.account import complete_account
from sam2_amg.process.signals import end_on_signals

_NEEDED = ("numpy", "PIL", "torch", "flask")  # that something is missing is seen in these


def main() -> int:
    """The command `sam2-amg`; returns the exit status."""
    prepare()
    from sam2_amg.cli.main import main as run_console

    return run_console()


def start(name: str) -> int:
    """Runs a command such as `serve` with this process' arguments; returns the exit status."""
    prepare()
    from sam2_amg.cli.main import run

    return run(name, sys.argv[1:])


def prepare() -> None:
    """Lets signals end the process from the first import on, and makes up for a user without a name. Raises SystemExit
    with a hint if packages are missing."""
    end_on_signals()
    complete_account()
    for package in _NEEDED:
        if find_spec(package) is None:  # which does not import it
            hint = "in a checkout, run `make run` once, then .venv/bin/python; elsewhere, pip install ."
            raise SystemExit(f"{sys.argv[0]}: error: {sys.executable} has no package {package}; {hint}")


if __name__ == "__main__":
    sys.exit(main())
