"""Candidate masks as tensors, and their conversion to records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from sam2_amg.pipeline.base import MaskRecord, PendingResult
from sam2_amg.postprocess.rle import RunBoundaries, boundaries_to_rles

# columns of the table of `Candidates`
_BOX, _IOU, _POINT, _STABILITY, _CROP = slice(0, 4), 4, slice(5, 7), 7, 8


@dataclass(frozen=True)
class Candidates:
    """n candidate masks, one per row. Coordinates are pixels of the photograph.

    Selecting masks does not copy logits, which take most of the memory: `row` indexes them. All other values are
    columns of one table, so that selecting and copying to the host take one call each; on a GPU, each call has a fixed
    cost. Float32 represents the pixel coordinates exactly.
    """

    logits: Tensor  # float32 or float16 [m, h, w], low-res, of these masks and others
    row: Tensor  # int64 [n], index of each mask in `logits`
    table: Tensor  # float32 [n, 9], the columns below

    @property
    def boxes(self) -> Tensor:
        """[n, 4], XYXY, inclusive"""
        return self.table[:, _BOX]

    @property
    def predicted_iou(self) -> Tensor:
        """[n]"""
        return self.table[:, _IOU]

    @property
    def points(self) -> Tensor:
        """[n, 2], (x, y)"""
        return self.table[:, _POINT]

    @property
    def stability(self) -> Tensor:
        """[n]"""
        return self.table[:, _STABILITY]

    @property
    def crop(self) -> Tensor:
        """[n], index of the crop"""
        return self.table[:, _CROP]

    def __len__(self) -> int:
        return len(self.row)

    def select(self, rows: Tensor) -> Self:
        """The masks at the given rows, in that order."""
        return type(self)(self.logits, self.row[rows], self.table[rows])

    def compact(self) -> Self:
        """The same masks with a copy of only their logits, so that the other logits can be freed."""
        row = torch.arange(len(self), device=self.row.device)
        return type(self)(self.logits[self.row], row, self.table)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """All masks of at least one part, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.logits) for part in parts[:-1])]).tolist()
        rows = [part.row + start for part, start in zip(parts, starts, strict=True)]
        logits, tables = [part.logits for part in parts], [part.table for part in parts]
        return cls(torch.cat(logits), torch.cat(rows), torch.cat(tables))

    def to_host(
        self, boundaries: list[RunBoundaries], size: tuple[int, int], crop_boxes: Sequence[list[int]]
    ) -> PendingResult:
        """One record per row, from its run boundaries in a photograph of `size` (height, width).

        `crop_boxes` are the XYXY boxes of all crops.
        """
        return partial(_to_records, boundaries, size, self.table.cpu(), crop_boxes)


def tabulate(boxes: Tensor, predicted_iou: Tensor, points: Tensor, stability: Tensor, crop: int) -> Tensor:
    """The table of `Candidates` for n masks of the crop with index `crop`: boxes [n, 4], points [n, 2], others [n]."""
    number = torch.full((len(boxes), 1), float(crop), device=boxes.device)
    return torch.cat([boxes.float(), predicted_iou[:, None].float(), points, stability[:, None], number], 1)


def _to_records(
    boundaries: list[RunBoundaries], size: tuple[int, int], table: Tensor, crop_boxes: Sequence[list[int]]
) -> list[MaskRecord]:
    crops = [[float(x) for x in _xyxy_to_xywh(box)] for box in crop_boxes]
    return [
        {
            "segmentation": rle,
            "area": area,
            "bbox": _xyxy_to_xywh(row[_BOX]),
            "predicted_iou": row[_IOU],
            "point_coords": [row[_POINT]],
            "stability_score": row[_STABILITY],
            "crop_box": list(crops[int(row[_CROP])]),
        }
        for rle, area, row in zip(*boundaries_to_rles(boundaries, size), table.tolist(), strict=True)
    ]


def _xyxy_to_xywh(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]
