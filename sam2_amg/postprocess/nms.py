"""Box non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops.boxes import batched_nms, nms

# Numbers, four a box, up to which `batched_nms` is `nms` on boxes moved class by class, and of one class not at all.
_MOVES_CLASSES = {"cpu": 4_000, "cuda": 100_000}


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Rows of `boxes` (int64 or float [n, 4], XYXY) to keep, best score first, int64 [m].

    A box is dropped whose IoU with a better one is over the threshold. sam2 calls torchvision's `batched_nms` with one
    class for all. So does this for many boxes, where that takes another path, which orders ties differently; for fewer
    it is `nms`.
    """
    if boxes.numel() <= _MOVES_CLASSES[boxes.device.type]:
        return nms(boxes.float(), scores, threshold)
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes.float(), scores, one_class, threshold)
