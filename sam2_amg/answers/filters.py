"""Which masks an answer has, beyond what sam2's parameters choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from sam2_amg.answers.options import require
from sam2_amg.answers.runs import box_of, compressed, label_map, runs_by_label, uncompressed
from sam2_amg.process.wanted import while_wanted

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_BLOCK = 256  # masks that are compared with all others at a time
_WORK = 2_000_000  # pairs of masks in a call of pycocotools, times their bytes: about ten milliseconds


@dataclass(frozen=True)
class Filters:
    """Filters of records. None and False leave them as they are. They are applied in this order:

    1. `min_mask_area` and `max_mask_area` (pixels): drop masks of fewer, and of more pixels.
    2. `mask_nms_thresh` (0 to 1): drops a mask whose IoU with a better one is over the threshold (`suppress_masks`).
    3. `max_masks`: keeps the first ones, in the records' order.
    4. `disjoint`: each pixel belongs to one mask at most (`make_disjoint`).

    Raises AnswerError if a value is not allowed.
    """

    min_mask_area: int | None = None
    max_mask_area: int | None = None
    mask_nms_thresh: float | None = None
    max_masks: int | None = None
    disjoint: bool = False

    def __post_init__(self) -> None:
        for name in ("min_mask_area", "max_mask_area", "max_masks"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        threshold = self.mask_nms_thresh
        require(threshold is None or 0 <= threshold <= 1, "mask_nms_thresh", "from 0 to 1", threshold)


def filtered(records: list[MaskRecord], size: tuple[int, int], filters: Filters) -> list[MaskRecord]:
    """The records that pass, in their order, of an image of `size` (height, width). The given ones do not change."""
    if filters.min_mask_area is not None:
        records = [record for record in records if record["area"] >= filters.min_mask_area]
    if filters.max_mask_area is not None:
        records = [record for record in records if record["area"] <= filters.max_mask_area]
    if filters.mask_nms_thresh is not None:
        records = suppress_masks(records, size, filters.mask_nms_thresh)
    if filters.max_masks is not None:
        records = records[: filters.max_masks]
    return make_disjoint(records, size) if filters.disjoint else records


def suppress_masks(records: Sequence[MaskRecord], size: tuple[int, int], threshold: float) -> list[MaskRecord]:
    """Non-maximum suppression by the IoU of masks. Those that are kept come in the order of `records`.

    Masks are considered from the highest predicted IoU to the lowest, of equal ones the earlier first. A mask is
    dropped if its IoU with a mask that was kept is over `threshold`.
    """
    order = sorted(range(len(records)), key=lambda i: -records[i]["predicted_iou"])
    rles = compressed(records, size)
    kept: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        if kept:
            worst = _iou([rles[i] for i in block], [rles[i] for i in kept]).max(axis=1)
            block = [i for i, iou in zip(block, worst, strict=True) if iou <= threshold]
        kept += _suppress_block(block, [rles[i] for i in block], threshold)
    return [records[i] for i in sorted(kept)]


def _suppress_block(block: Sequence[int], rles: list[dict[str, Any]], threshold: float) -> list[int]:
    if not block:
        return []
    over = _iou(rles, rles) > threshold
    kept = np.zeros(len(block), bool)
    for i in range(len(block)):
        kept[i] = not (over[i] & kept).any()
    return [index for index, keep in zip(block, kept, strict=True) if keep]


def _iou(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> np.ndarray:
    """IoU of each mask of a with each of b, float64 [len(a), len(b)].

    It comes in calls of some milliseconds, because pycocotools lets no other thread run meanwhile.
    """
    found = np.empty((len(a), len(b)))
    longest = sum(max(len(rle["counts"]) for rle in rles) for rles in (a, b))  # bytes, about as many as runs
    side = max(1, math.isqrt(_WORK // longest))
    for i, j in while_wanted(product(range(0, len(a), side), range(0, len(b), side))):
        some = b[j : j + side]
        found[i : i + side, j : j + side] = coco_mask.iou(a[i : i + side], some, [0] * len(some))
    return found


def make_disjoint(records: Sequence[MaskRecord], size: tuple[int, int]) -> list[MaskRecord]:
    """Masks that share no pixel. A pixel of several masks goes to the smallest, of equal ones to the latest.

    A mask that loses all its pixels is dropped. `segmentation`, `area` and `bbox` (in sam2's form) describe the pixels
    that are left; the other fields stay as they are.
    """
    left: list[MaskRecord] = []
    for record, runs in zip(records, runs_by_label(label_map(records, size), len(records)), strict=True):
        if len(runs.starts):
            area = int((runs.ends - runs.starts).sum())
            bbox = box_of(runs, size[0]).sam2
            left.append({**record, "segmentation": uncompressed(runs, size), "area": area, "bbox": bbox})
    return left
