"""`rle`: run lengths by name, the answer of `POST /upload_rle`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.options import Segmented
from sam2_amg.answers.runs import with_counts

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord


def rles_by_name(records: Sequence[MaskRecord]) -> dict[str, Any]:
    """{"mask_0": {"size": [h, w], "counts": ...}, ...} in the records' order."""
    return {f"mask_{i}": record["segmentation"] for i, record in enumerate(records)}


def encode(image: Segmented) -> bytes:
    """`rles_by_name` as a line of JSON. Counts are uncompressed by default."""
    return json_line(rles_by_name(with_counts(image, "uncompressed")))
