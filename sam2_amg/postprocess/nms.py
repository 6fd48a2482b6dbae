"""Box non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops.boxes import batched_nms, nms

# Up to this many box coordinates (four per box), torchvision's `batched_nms` shifts the boxes by class and calls `nms`.
# With one class, it shifts nothing.
_MOVES_CLASSES = {"cpu": 4_000, "cuda": 100_000}


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Rows of `boxes` (int64 or float [n, 4], XYXY) to keep, best score first, int64 [m].

    A box is dropped if its IoU with a better box is over the threshold; see `widen_thin` for boxes without area. sam2
    calls torchvision's `batched_nms` with one class. For few boxes that equals `nms`, which is called directly. For
    many it orders ties differently, so `batched_nms` is called.
    """
    boxes = widen_thin(boxes)
    if boxes.numel() <= _MOVES_CLASSES[boxes.device.type]:
        return nms(boxes, scores, threshold)
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes, scores, one_class, threshold)


def widen_thin(boxes: Tensor) -> Tensor:
    """The boxes, whole numbers [n, 4] as XYXY, in float32; zero width or height becomes one pixel around the middle.

    The box of a mask one pixel wide or high has no area, so it would suppress nothing, not even its equals. The IoU of
    a widened box and a box with an area is at most 0.5. `restore_thin` is the inverse.
    """
    boxes = boxes.float()
    half = (boxes[:, 2:] == boxes[:, :2]) * 0.5  # [n, 2]
    return boxes + torch.cat([-half, half], dim=1)


def restore_thin(boxes: Tensor) -> Tensor:
    """Inverse of `widen_thin`: float32 [n, 4], also after a shift by whole pixels."""
    return torch.cat([boxes[:, :2].ceil(), boxes[:, 2:].floor()], dim=1)
