"""The account that runs this process, which in a container is often a number without a name and a home."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path


def complete_account() -> None:
    """Sets LOGNAME for a user without a name, which torch cannot be imported by, and TRITON_HOME for one who cannot
    write at home."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    if not _is_writable(Path("~/.triton/cache")):
        os.environ.setdefault("TRITON_HOME", os.path.join(tempfile.gettempdir(), f"triton_{name}"))


def make_writable(folder: Path) -> None:
    """Makes a folder, unless it is there. Raises OSError if no file can be written in it."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written to, or made. Its name begins with "~"."""
    path = Path(os.path.expanduser(folder))
    there = next((each for each in (path, *path.parents) if os.path.exists(each)), None)  # which never raises
    return path.is_absolute() and there is not None and os.access(there, os.W_OK | os.X_OK)
