"""Folders of this machine -> the paths of the files in them, without holding all of them as objects."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator

from sam2_amg.batch.inputs.addresses import one_line
from sam2_amg.errors import StartupError

_OF_THE_SYSTEM = b"/lost+found/"  # at the top of a disk, and closed to all but root
_TOGETHER = 1 << 16  # names that are sorted at once


def as_bytes(path: str) -> bytes:
    """A path as the system has it."""
    return path.encode("utf-8", "surrogateescape")


def as_text(path: bytes) -> str:
    """A path in which bytes that are not UTF-8 are lone surrogates."""
    return path.decode("utf-8", "surrogateescape")


def walk_folder(folder: str) -> Iterator[str]:
    """The paths, under a folder, of all files in it and its subfolders, sorted by their bytes.

    Hidden files and folders are skipped, a lost+found that is closed, and what is neither a file nor a folder. Links
    are followed, but not to a folder that the link is in. A link to nothing counts as a file. Raises StartupError if a
    folder cannot be listed.
    """
    return (as_text(path) for path in _walk(as_bytes(folder) or b".", b"", ()))


def _walk(top: bytes, under: bytes, above: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    folder = os.path.join(top, under)
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in above:
            return
        names = _sorted_names(folder)
    except OSError as error:
        if above and isinstance(error, FileNotFoundError):  # removed since it was found
            return
        if above and isinstance(error, PermissionError) and (b"/" + under).endswith(_OF_THE_SYSTEM):
            return
        raise StartupError(f"{as_text(folder)} cannot be listed ({one_line(error)}); let it be read") from error
    for name in names:
        if name.endswith(b"/"):
            yield from _walk(top, under + name, (*above, (status.st_dev, status.st_ino)))
        else:
            yield under + name


def _sorted_names(folder: bytes) -> Iterator[bytes]:
    """The files and, with a slash at their end, subfolders of a folder. Names are held in blocks of bytes."""
    blocks: list[bytes] = []
    names: list[bytes] = []
    with os.scandir(folder) as found:
        for entry in found:
            if kind := _kind_of(entry):
                names.append(entry.name + kind[1:])
            if len(names) == _TOGETHER:
                blocks.append(b"\0".join(sorted(names)))
                names.clear()
    return heapq.merge(*map(_split, blocks), sorted(names))


def _split(block: bytes) -> Iterator[bytes]:
    start = 0
    while (end := block.find(b"\0", start)) >= 0:
        yield block[start:end]
        start = end + 1
    yield block[start:]


def _kind_of(entry: os.DirEntry[bytes]) -> bytes:
    """b"f" for a file, b"d/" for a folder, b"" for what is skipped."""
    if entry.name.startswith(b"."):
        return b""
    try:
        if entry.is_dir():
            return b"d/"
        return b"f" if entry.is_file() or not os.path.exists(entry.path) else b""
    except OSError:  # a link to itself
        return b"f"


def is_local_folder(path: str) -> bool:
    """Whether a path is a folder's, or a file's. Raises StartupError if it is neither."""
    way_out = "give an image, a folder, a tar or @LIST"
    try:
        mode = os.stat(as_bytes(path)).st_mode
    except FileNotFoundError as error:
        raise StartupError(f"{path} does not exist; {way_out}") from error
    except (OSError, ValueError) as error:
        raise StartupError(f"{path} cannot be read ({one_line(error)}); {way_out}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise StartupError(f"{path} is neither a file nor a folder; {way_out}")
    return stat.S_ISDIR(mode)
