"""`jsonl`: a row a line, with the masks as sam2's records in "masks", in place of which failed images have "error"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from sam2_amg.answers.json_line import json_line
from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import Row, json_of, row_of, with_settings


@dataclass(frozen=True)
class Line:
    """An image's row, and the JSON of its records; None if it has none."""

    row: Row
    masks: bytes | None


def encode(result: Result) -> Line:
    """The row, and the records as JSON."""
    return Line(row_of(result), None if isinstance(result.found, Problem) else json_line(result.found).rstrip())


class Writer:
    """Writes lines as they come."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        self._stream = stream
        self._settings = settings

    def add(self, encoded: Line) -> None:
        """Writes a line."""
        row = json_of(with_settings(encoded.row, self._settings))
        if encoded.masks is not None:
            row = b"".join((row.rstrip()[:-1], b',"masks":', encoded.masks, b"}\n"))
        self._stream.write(row)

    def finish(self) -> None:
        """Nothing stands at the end."""


JSONL = Output(".jsonl", encode, Writer)
