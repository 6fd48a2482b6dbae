"""The list of inputs as a file: JSON lines.

The first line is a header. Each other line is the name of a file ("a.jpg"), of a tar (["a.tar"]), or what stands before
the names that follow, to make paths and addresses of them ({"at": "photos/"}; at first it is nothing).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

from sam2_amg.batch.inputs.listing import Entry
from sam2_amg.errors import StartupError

_VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a list begins with: how files are cut into shards, and the INPUTs that it was made of."""

    shard_size: int
    inputs: list[str]
    version: int = _VERSION


class ListWriter:
    """Writes a list to a stream."""

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self._stream = stream
        self._before = ""
        self._write(asdict(header))

    def add(self, entry: Entry) -> None:
        """The next input."""
        before = entry.at.removesuffix(entry.name)
        if before != self._before:
            self._write({"at": before})
            self._before = before
        self._write(entry.name if entry.kind == "file" else [entry.name])

    def _write(self, value: object) -> None:
        self._stream.write(json.dumps(value).encode() + b"\n")


def read_header(line: bytes, where: str) -> Header:
    """The header of a list. Raises StartupError if it is none of this version."""
    try:
        header = Header(**json.loads(line))
        if header.version == _VERSION:
            return header
    except (ValueError, TypeError):
        pass
    raise StartupError(f"{where} is no list of inputs of this version; remove it and the shards beside it")


def read_lines(lines: Iterable[bytes], before: str = "") -> Iterator[Entry]:
    """The inputs of lines without the header. `before` is what an earlier line says stands before names."""
    for line in lines:
        value = json.loads(line.decode())  # of bytes, json would guess the encoding
        if isinstance(value, dict):
            before = value["at"]
        elif isinstance(value, list):
            yield Entry("tar", before + value[0], value[0])
        else:
            yield Entry("file", before + value, value)
