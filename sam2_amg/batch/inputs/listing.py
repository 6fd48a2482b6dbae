"""INPUTs of the command line -> the images and tars that they stand for, one after another."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO, Literal

from sam2_amg.batch.inputs.addresses import is_address, is_folder, one_line, open_filesystem, walk_address
from sam2_amg.batch.inputs.folders import as_bytes, as_text, is_local_folder, walk_folder
from sam2_amg.batch.inputs.names import expand, is_image, is_tar
from sam2_amg.errors import StartupError

_PIECE = 1 << 20  # bytes of a list that are read at once; no path is longer


@dataclass(frozen=True, slots=True)
class Entry:
    """An image, or a tar of images. `at` is its path or address, and ends with `name`, its name in the output."""

    kind: Literal["file", "tar"]
    at: str
    name: str


def list_inputs(inputs: Sequence[str], stdin: BinaryIO) -> Iterator[Entry]:
    """All images and tars in the order of the INPUTs, which are files, folders, tars, @LIST or - for a list on `stdin`.

    Folders are sorted by the bytes of paths. What a list holds is not looked at. Raises StartupError for an INPUT that
    is not there or cannot be listed.
    """
    if sum(given == "-" for given in inputs) > 1:
        raise StartupError("INPUT - is given twice, but there is one standard input; give - once")
    for given in inputs:
        for text in [given] if os.path.lexists(as_bytes(given)) else expand(given):
            yield from _list_input(text, stdin)


def _list_input(text: str, stdin: BinaryIO) -> Iterator[Entry]:
    if text == "-":
        yield from map(_entry, _read_list(stdin, "standard input"))
    elif text.startswith("@"):
        yield from _list_of_file(text[1:])
    elif not (is_folder(text) if is_address(text) else is_local_folder(text)):
        yield _entry(text)
    else:
        top = text if text.endswith("/") else text + "/"
        for name in walk_address(top) if is_address(text) else walk_folder(top):
            if is_image(name) or is_tar(name):
                yield _entry(name, top)


def _entry(name: str, top: str = "") -> Entry:
    return Entry("tar" if is_tar(name) else "file", top + name, name)


def _list_of_file(at: str) -> Iterator[Entry]:
    try:
        with ExitStack() as stack:
            if is_address(at):
                filesystem, path = open_filesystem(at)
                stream = stack.enter_context(filesystem.open(path, "rb"))
            else:
                stream = stack.enter_context(open(as_bytes(at), "rb"))
            yield from map(_entry, _read_list(stream, at))
    except StartupError:
        raise
    except Exception as error:  # each file system has its own kinds
        raise StartupError(f"@{at} cannot be read ({one_line(error)}); give a list of paths, one a line") from error


def _read_list(stream: BinaryIO, what: str) -> Iterator[str]:
    """The paths of a list, one a line, or with a NUL after each. Raises StartupError for a path over 1 MiB."""
    piece = _read_fully(stream).removeprefix(codecs.BOM_UTF8)
    mark = b"\0" if b"\0" in piece else b"\n"
    rest = b""
    while piece:
        *paths, rest = (rest + piece).split(mark)
        if len(rest) > _PIECE:
            raise StartupError(f"{what} has a path of more than 1 MiB; give a list of paths, one a line")
        yield from _paths(paths, mark)
        piece = stream.read(_PIECE)
    yield from _paths([rest], mark)


def _read_fully(stream: BinaryIO) -> bytes:
    """A piece, which a pipe may give in parts."""
    found = b""
    while len(found) < _PIECE and (more := stream.read(_PIECE - len(found))):
        found += more
    return found


def _paths(paths: list[bytes], mark: bytes) -> Iterator[str]:
    for path in paths:
        kept = path.removesuffix(b"\r") if mark == b"\n" else path
        if kept:
            yield as_text(kept)
