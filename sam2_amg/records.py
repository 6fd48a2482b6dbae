"""What the generator returns: one record a mask, with sam2's keys, and the tensors that become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.utils.amg import area_from_rle
from torch import Tensor

from sam2_amg.config import GeneratorConfig
from sam2_amg.reference.rle import Edges, UncompressedRle, edges_to_rle


class MaskRecord(TypedDict):
    """One mask, as `SAM2AutomaticMaskGenerator` describes it; boxes are XYWH in pixels of the photograph."""

    segmentation: UncompressedRle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


Unfinished = Callable[[], list[MaskRecord]]
"""Masks that have left the device: called on any thread, it makes records of them."""


class Generator(Protocol):
    """Makes masks of an image, in whatever mode. `config` has no None left in it."""

    config: GeneratorConfig
    batch_size: int = 1  # most images that `encode` takes

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3], best predicted IoU first (with crops: smallest crops first)."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """What `segment` is given with each of these images; they are segmented before others are encoded."""
        return [None] * len(images)

    def segment(self, image: NDArray[np.uint8], features: Any = None) -> Unfinished:
        """Masks in two steps: while one thread finishes an image, another can begin the next."""
        records = self.generate(image)
        return lambda: records


@dataclass(frozen=True)
class Candidates:
    """n masks on their way through the pipeline, a row each; coordinates are pixels of the photograph.

    Logits are by far the largest of it, so choosing among masks does not copy them: `row` says where they lie.
    """

    logits: Tensor  # float32 or float16 [m, h, w], low-res, of these masks and others
    row: Tensor  # int64 [n], of each mask in `logits`
    predicted_iou: Tensor  # float32 [n]
    points: Tensor  # float32 [n, 2], (x, y)
    stability: Tensor  # float32 [n]
    boxes: Tensor  # int64 [n, 4], XYXY, inclusive
    crop: Tensor  # int64 [n], which crop of the image

    def __len__(self) -> int:
        return len(self.row)

    def select(self, rows: Tensor) -> Self:
        """The masks that an index or a bool mask names, in its order."""
        return type(self)(self.logits, *(getattr(self, name)[rows] for name in self._names()))

    def compact(self) -> Self:
        """The same masks with a copy of their own logits, which lets go of the others'."""
        return replace(self, logits=self.logits[self.row], row=torch.arange(len(self), device=self.row.device))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """All masks of one part or more, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.logits) for part in parts[:-1])]).tolist()
        parts = [replace(part, row=part.row + start) for part, start in zip(parts, starts, strict=True)]
        names = ("logits", *cls._names())
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "logits"]

    def leave_device(self, edges: list[Edges], size: tuple[int, int], crop_boxes: Tensor) -> Unfinished:
        """One record a row, with its edges in a photograph of `size`. `crop_boxes` are the XYXY boxes of all crops."""
        columns = (self.boxes, self.predicted_iou, self.points, self.stability, crop_boxes[self.crop])
        return partial(_to_records, edges, size, [column.float().cpu() for column in columns])


def _to_records(edges: list[Edges], size: tuple[int, int], columns: list[Tensor]) -> list[MaskRecord]:
    rows = zip(edges, *(column.tolist() for column in columns), strict=True)
    records: list[MaskRecord] = []
    for of_mask, box, iou, point, stability, crop_box in rows:
        rle = edges_to_rle(of_mask, size)
        records.append(
            {
                "segmentation": rle,
                "area": area_from_rle(rle),
                "bbox": _xyxy_to_xywh(box),
                "predicted_iou": iou,
                "point_coords": [point],
                "stability_score": stability,
                "crop_box": _xyxy_to_xywh(crop_box),
            }
        )
    return records


def _xyxy_to_xywh(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]
