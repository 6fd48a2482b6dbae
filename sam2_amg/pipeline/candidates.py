"""Candidate masks as tensors, and their conversion to records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.postprocess.rle import RunBoundaries, boundaries_to_rles

# columns of the table of `Candidates`
_BOX, _IOU, _POINT, _STABILITY, _CROP = slice(0, 4), 4, slice(5, 7), 7, 8


@dataclass(frozen=True)
class Candidates:
    """n candidate masks, one per row. Coordinates are pixels of the photograph.

    All values but logits are columns of one table, so that selecting and copying to the host take one call each; on a
    GPU, each call has a fixed cost. Float32 represents the pixel coordinates exactly.
    """

    logits: Tensor  # float32 or float16 [n, h, w], low-res
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
        return len(self.table)

    def select(self, rows: Tensor) -> Self:
        """The masks at the given rows, in that order: a copy, so that the other masks can be freed."""
        return type(self)(self.logits.index_select(0, rows), self.table.index_select(0, rows))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """All masks of at least one part, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.logits for part in parts]), torch.cat([part.table for part in parts]))


def tabulate(boxes: Tensor, predicted_iou: Tensor, points: Tensor, stability: Tensor, crop: int) -> Tensor:
    """The table of `Candidates` for n masks of the crop with index `crop`: boxes [n, 4], points [n, 2], others [n]."""
    number = torch.full((len(boxes), 1), float(crop), device=boxes.device)
    return torch.cat([boxes.float(), predicted_iou[:, None].float(), points, stability[:, None], number], 1)


def to_records(
    boundaries: list[RunBoundaries], size: tuple[int, int], table: Tensor, crop_boxes: Sequence[list[int]]
) -> list[MaskRecord]:
    """A record for each row of a table of `Candidates`, on the host, from its run boundaries in a photograph of `size`.

    `size` is (height, width); `crop_boxes` are the XYXY boxes of all crops.
    """
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
