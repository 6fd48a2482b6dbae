"""Box non-maximum suppression."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torchvision.ops.boxes import batched_nms, nms

# Up to this many box coordinates (four per box), torchvision's `batched_nms` shifts the boxes by class and calls `nms`.
# With one class, it shifts nothing.
_MOVES_CLASSES = {"cpu": 4_000, "cuda": 100_000}


def suppress(boxes: Tensor, scores: Tensor, threshold: float, among: Tensor | None = None) -> Tensor:
    """Rows of `boxes` (int64 or float [n, 4], XYXY) to keep, best score first, int64 [m].

    A box is dropped if its IoU with a better box is over the threshold; see `widen_thin` for boxes without area. sam2
    calls torchvision's `batched_nms` with one class. For few boxes that equals `nms`, which is called directly. For
    many it orders ties differently, so `batched_nms` is called.

    `among`, bool [n], are the boxes that count: others are dropped, and drop none. For up to _MOST_AMONG boxes on a
    GPU, the host waits for it only once.
    """
    if among is not None:
        if len(boxes) <= _MOST_AMONG and boxes.is_cuda and threshold < _CERTAIN:
            return _suppress_among(widen_thin(boxes), scores, threshold, among)
        rows = among.nonzero()[:, 0]
        return rows[suppress(boxes[rows], scores[rows], threshold)]
    boxes = widen_thin(boxes)
    if boxes.numel() <= _MOVES_CLASSES[boxes.device.type]:
        return nms(boxes, scores, threshold)
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes, scores, one_class, threshold)


def _suppress_among(boxes: Tensor, scores: Tensor, threshold: float, among: Tensor) -> Tensor:
    """`nms` of some boxes, float [n, 4], for thresholds below _CERTAIN. The host need not wait to choose them first.

    All others become one box that overlaps none, with the worst of scores, and one box more is like that. Of these, the
    first stays, behind all that count.
    """
    apart = _apart(boxes.device)
    boxes = torch.cat([torch.where(among[:, None], boxes, apart), apart[None]])
    scores = torch.cat([scores.masked_fill(~among, float("-inf")), scores.new_full((1,), float("-inf"))])
    return nms(boxes, scores, threshold)[:-1]


_MOST_AMONG = 1024  # boxes; for more of them, to look at all pairs takes longer than a wait
_CERTAIN = 0.999  # below it, two boxes of one place overlap by more than a threshold also where that is float32


@cache
def _apart(device: torch.device) -> Tensor:
    """Float32 [4], XYXY: a box of one pixel that no photograph has. Copied to a device once, which waits for it."""
    return torch.tensor([-2.0, -2.0, -1.0, -1.0], device=device)


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
