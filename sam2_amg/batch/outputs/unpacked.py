"""--unpack: a file an image in the store itself, and rows as the shard."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import json_of, with_settings
from sam2_amg.batch.outputs.tars import Entry
from sam2_amg.batch.stores.base import Store

_LONGEST = 240  # bytes
FOLDER = "files"  # below the store: images may be called like shards


def unpacked(output: Output, store: Store) -> Output:
    """An output of tars as one of files. The files are there, whole, before the shard with their rows is."""

    def check(result: Result) -> Result:
        longest = max(len(part.encode("utf-8", "surrogateescape")) for part in result.name.split("/"))
        if isinstance(result.found, Problem) or longest <= _LONGEST:
            return output.check(result)
        message = f"a part of the name has {longest} bytes, and file systems take {_LONGEST} with a suffix of ours"
        return replace(result, found=Problem("unsafe_name", f"{message}; give the image a shorter name"))

    def encode(result: Result) -> Entry:
        entry: Entry = output.encode(result)
        if entry.member is not None:
            name, data = entry.member
            with store.write(f"{FOLDER}/{name}") as stream:
                stream.write(data)
        return replace(entry, member=None)

    return replace(output, suffix=".jsonl", encode=encode, begin=Rows, check=check)


class Rows:
    """Writes a row a line."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        self._stream = stream
        self._settings = settings

    def add(self, encoded: Entry) -> None:
        """Writes a line."""
        self._stream.write(json_of(with_settings(encoded.row, self._settings)))

    def finish(self) -> None:
        """Nothing stands at the end."""
