"""`coco`: a document of COCO's object detection format, as pycocotools loads it."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco_mask

from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.options import Segmented
from sam2_amg.answers.runs import as_text, compressed

IMAGE_ID = CATEGORY_ID = 1
INFO = {"description": "Masks of SAM 2.1's automatic mask generator"}
CATEGORIES = [{"id": CATEGORY_ID, "name": "object", "supercategory": ""}]
_FURTHER_KEYS = ("predicted_iou", "stability_score", "point_coords", "crop_box")


def annotations_of(image: Segmented) -> list[dict[str, Any]]:
    """An annotation for each record, with ids from 1. `bbox` follows COCO: one pixel has width and height 1.

    Counts are compressed by default.
    """
    if not image.records:
        return []
    rles = compressed(image.records, image.size)
    boxes = coco_mask.toBbox(rles).tolist()
    as_lists = image.options.counts == "uncompressed"
    return [
        {
            "id": i,
            "image_id": IMAGE_ID,
            "category_id": CATEGORY_ID,
            "segmentation": record["segmentation"] if as_lists else as_text(rle),
            "area": record["area"],
            "bbox": bbox,
            "iscrowd": 0,
            **{key: record[key] for key in _FURTHER_KEYS},  # type: ignore[literal-required]
        }
        for i, (record, rle, bbox) in enumerate(zip(image.records, rles, boxes, strict=True), start=1)
    ]


def encode(image: Segmented) -> bytes:
    """The whole document, as a line of JSON: one image, one category, an annotation for each mask."""
    height, width = image.size
    document = {
        "info": INFO,
        "licenses": [],
        "images": [{"id": IMAGE_ID, "file_name": image.name, "width": width, "height": height}],
        "categories": CATEGORIES,
        "annotations": annotations_of(image),
    }
    return json_line(document)
