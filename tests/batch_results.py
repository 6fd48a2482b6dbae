"""Results for the tests of batch outputs: masks of discs, and images that are hard to write."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from typing import Any

import numpy as np
from answer_masks import discs, records_of
from pycocotools import mask as coco_mask

from sam2_amg.answers.runs import as_text, compressed
from sam2_amg.batch.items import Problem, Result
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.pipeline.base import MaskRecord

SETTINGS = "5e771465"
NOT_UTF8 = os.fsdecode(b"caf\xe9/\xff.jpg")
BROKEN = Problem("truncated_image", "The image ends early.")


def compressed_records(masks: list[np.ndarray]) -> list[MaskRecord]:
    """Records as the batch job has them: counts are text."""
    records = records_of(masks)
    rles: list[Any] = [as_text(rle) for rle in compressed(records, masks[0].shape)] if masks else []
    return [{**record, "segmentation": rle} for record, rle in zip(records, rles, strict=True)]


def result_of(name: str, count: int = 5, size: tuple[int, int] = (48, 64), seed: int = 0) -> Result:
    """An image of noise with so many discs."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    found = compressed_records(discs(count, size, seed))
    return Result(
        name, hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest(), size, found, {"a": 1.5}, image
    )


def shard() -> list[Result]:
    """Three images with masks, one without, two that failed, and names that are hard to write."""
    return [
        result_of("photos/one.jpg"),
        result_of("photos/one.png", 3, (30, 20), seed=1),
        result_of("/" + "long" * 40 + "/two.jpg", 12, (64, 48), seed=2),
        result_of("nothing.jpg", count=0),
        Result("broken.jpg", "ab" * 32, None, BROKEN),
        replace(result_of("late.jpg"), found=Problem("timeout", f"{NOT_UTF8} took too long.")),
        result_of(NOT_UTF8, 2),
        result_of('two\nlines é 😀 ".jpg', 2),
    ]


def written(format: str, results: list[Result]) -> bytes:
    """The shard of results."""
    output = OUTPUTS[format]
    stream = WriteOnly()
    writer = output.begin(stream, SETTINGS)
    for result in results:
        writer.add(output.encode(output.check(result)))
    writer.finish()
    return stream.taken()


class WriteOnly(io.RawIOBase):
    """A stream that cannot go back, as one to a bucket."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("write to a closed stream")
        self._pieces.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        assert not self.closed  # its caller closes it
        return b"".join(self._pieces)


def pixels(rle: Any) -> np.ndarray:
    """The mask of compressed RLE with text, bool [h, w]."""
    return coco_mask.decode({"size": list(rle["size"]), "counts": rle["counts"]}).astype(bool)
