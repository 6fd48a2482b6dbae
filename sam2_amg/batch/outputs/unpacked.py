"""--unpack: a file an image in the store itself, and rows as the shard."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from sam2_amg.batch.items import Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import json_of, with_settings
from sam2_amg.batch.outputs.tars import Entry
from sam2_amg.batch.stores.base import Store

FOLDER = "files"  # below the store: images may be called like shards


def unpacked(output: Output, store: Store) -> Output:
    """An output of tars as one of files. The files are there, whole, before the shard with their rows is."""

    def encode(result: Result) -> Entry:
        entry: Entry = output.encode(result)
        if entry.member is not None:
            name, data = entry.member
            with store.write(f"{FOLDER}/{name}") as stream:
                stream.write(data)
        return replace(entry, member=None)

    return Output(".jsonl", encode, Rows, output.needs_image, check=output.check)


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
