"""How this process was started, for messages that name its command or suggest another."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = {"serve": "server.py", "export": "compile_export.py", "compare": "compare_rle_lists.py"}


def command_for(name: str) -> str:
    """What to type for a command such as `export`, in the form in which this process was started."""
    script = _script_for(name)
    return f"python {script}" if script else f"{console()} {name}"


def prefix_for(name: str) -> str:
    """The program name in a command's error messages and usage line."""
    return _script_for(name) or command_for(name)


def console() -> str:
    """What to type before a command's name."""
    is_module = Path(sys.argv[0]).parts[-2:] == ("sam2_amg", "__main__.py")
    return "python -m sam2_amg" if is_module or _is_script() else "sam2-amg"


def _script_for(name: str) -> str | None:
    return SCRIPTS.get(name) if _is_script() else None


def _is_script() -> bool:
    return Path(sys.argv[0]).name in SCRIPTS.values()
