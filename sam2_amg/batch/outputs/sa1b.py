"""`sa1b`: tars of a JSON file an image, in the layout of the SA-1B data set.

`image_id` is a number of 63 bits that follows from the image's name. Ids of annotations count from 0 in each image.
Boxes are sam2's: one pixel has width and height 0.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from sam2_amg.batch.items import Result
from sam2_amg.batch.outputs.rows import json_of
from sam2_amg.batch.outputs.tars import tar_output

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_KEYS = ("segmentation", "bbox", "area", "predicted_iou", "stability_score", "point_coords", "crop_box")


def image_id(name: str) -> int:
    """The same number from 0 to 2**63 - 1 for the same name, wherever it is computed."""
    return int.from_bytes(blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "big") >> 1


def document(result: Result, records: list[MaskRecord]) -> bytes:
    """The JSON file of an image."""
    assert result.size is not None  # there are records
    height, width = result.size
    image = {"image_id": image_id(result.name), "file_name": result.name, "width": width, "height": height}
    annotations = [
        {"id": i, **{key: record[key] for key in _KEYS}}  # type: ignore[literal-required]
        for i, record in enumerate(records)
    ]
    return json_of({"image": image, "annotations": annotations})


SA1B = tar_output(".json", document)
