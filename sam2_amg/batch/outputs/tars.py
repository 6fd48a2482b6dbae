"""Tar archives with a member an image, and `rows.jsonl` as the last member.

A row of `rows.jsonl` is that of `jsonl`, with the number of masks as "mask_count" in place of the masks. Members have
equal times, owners and rights, so that equal images make equal archives, except for the milliseconds in `rows.jsonl`.
Names that are not ASCII stand in pax headers, byte by byte.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import Row, json_of, row_of, safe_name, with_safe_name, with_settings

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

ROWS = "rows.jsonl"

Check = Callable[[Result], Result]
Make = Callable[[Result, "list[MaskRecord]"], bytes]


@dataclass(frozen=True)
class Entry:
    """An image's row, and its member: name and bytes; None if it has no masks."""

    row: Row
    member: tuple[str, bytes] | None


def entry_of(result: Result, suffix: str, make: Make) -> Entry:
    """The entry of an image. Its member is called as the image is, below the archive's folder, and `suffix` after it.

    `make` makes the member of the result and its records. The result has passed the output's `check`.
    """
    row, name = row_of(result), safe_name(result.name)
    if isinstance(result.found, Problem):
        return Entry(row, None)
    assert name is not None  # the output's check has seen to it
    return Entry({**row, "mask_count": len(result.found)}, (name + suffix, make(result, result.found)))


def tar_output(suffix: str, make: Make, check: Check = lambda result: result, needs_image: bool = False) -> Output:
    """An output of tars, whose members are made by `make` of what `check` returns."""

    def encode(result: Result) -> Entry:
        return entry_of(result, suffix, make)

    def whole(result: Result) -> Result:
        return with_safe_name(check(result))

    return Output(".tar", encode, Writer, needs_image, check=whole, place_of=safe_name)


class Writer:
    """Writes members as they come, and never goes back in the stream. It holds the rows until the end."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        self._stream = stream
        self._settings = settings
        self._rows: list[bytes] = []
        self._written = 0

    def add(self, encoded: Entry) -> None:
        """Writes the member, if there is one."""
        row = with_settings(encoded.row, self._settings)
        if encoded.member:
            self._add_member(*encoded.member)
        self._rows.append(json_of(row))

    def finish(self) -> None:
        """Writes the rows, and the end of the archive."""
        self._add_member(ROWS, b"".join(self._rows))
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._written % tarfile.RECORDSIZE))

    def _add_member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # its other fields are 0, and its mode is 0644
        member.size = len(data)
        self._write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._written += len(data)
