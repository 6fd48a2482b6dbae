"""How this process was started, for errors that name it and messages that tell another command."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = {"serve": "server.py", "export": "compile_export.py", "compare": "compare_rle_lists.py"}


def command_for(name: str) -> str:
    """What to type for a command such as `export`, in the way in which this process was started."""
    script = _script_for(name)
    return f"python {script}" if script else f"{console()} {name}"


def prefix_for(name: str) -> str:
    """What stands before the errors of a command, and before its flags in --help."""
    return _script_for(name) or command_for(name)


def console() -> str:
    """What to type before the name of a command."""
    is_module = Path(sys.argv[0]).parts[-2:] == ("sam2_amg", "__main__.py")
    return "python -m sam2_amg" if is_module or _is_script() else "sam2-amg"


def _script_for(name: str) -> str | None:
    return SCRIPTS.get(name) if _is_script() else None


def _is_script() -> bool:
    return Path(sys.argv[0]).name in SCRIPTS.values()
