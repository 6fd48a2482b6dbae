"""`coco`: a document of COCO's object detection format a shard.

Ids of images and annotations count from 1 in each document. `info` has the settings' hash. Failed images stand in the
further key "errors" alone: [{"file_name", "code", "message"}].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from sam2_amg.answers.coco import CATEGORIES, INFO, annotations_of
from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.options import Segmented
from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.rows import json_of


@dataclass(frozen=True)
class Described:
    """An entry of "images" without its id, and the annotations; or an entry of "errors"."""

    entry: dict[str, Any]
    annotations: list[dict[str, Any]] | None


def encode(result: Result) -> Described:
    """The annotations of an image, with ids as if it were the only one."""
    if isinstance(result.found, Problem):
        error = {"file_name": result.name, "code": result.found.code, "message": result.found.message}
        return Described(error, None)
    assert result.size is not None  # there are records
    height, width = result.size
    image = {"file_name": result.name, "width": width, "height": height, "sha256": result.sha256}
    return Described(image, annotations_of(Segmented(result.found, result.size)))


class Writer:
    """Writes annotations as they come. It holds the entries of images and errors until the end."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        self._stream = stream
        self._images: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []
        self._annotations = 0
        start = {"info": {**INFO, "settings": settings}, "licenses": [], "categories": CATEGORIES}
        stream.write(json_line(start).rstrip()[:-1] + b',"annotations":[')

    def add(self, encoded: Described) -> None:
        """Writes the annotations, with ids that are the shard's."""
        if encoded.annotations is None:
            self._errors.append(encoded.entry)
            return
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, **encoded.entry})
        if encoded.annotations:
            first = self._annotations + 1
            renumbered = [
                {**annotation, "id": i, "image_id": image_id} for i, annotation in enumerate(encoded.annotations, first)
            ]
            self._stream.write((b",\n" if first > 1 else b"\n") + json_line(renumbered)[1:-2])  # without its brackets
            self._annotations += len(renumbered)

    def finish(self) -> None:
        """Writes the images and the errors."""
        self._stream.write(b"],\n" + json_of({"images": self._images, "errors": self._errors})[1:])


COCO = Output(".json", encode, Writer)
