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

    A box is dropped if its IoU with a better box is over the threshold. sam2 calls torchvision's `batched_nms` with one
    class. For few boxes that equals `nms`, which is called directly. For many it orders ties differently, so
    `batched_nms` is called.
    """
    if boxes.numel() <= _MOVES_CLASSES[boxes.device.type]:
        return nms(boxes.float(), scores, threshold)
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes.float(), scores, one_class, threshold)
