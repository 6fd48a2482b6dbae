"""Box non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops.boxes import batched_nms


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Rows of `boxes` (int64 or float [n, 4], XYXY) to keep, best score first, int64 [m].

    A box is dropped whose IoU with a better one is over the threshold. sam2 calls torchvision's `batched_nms` with one
    class for all; so does this, because beyond 4,000 boxes that takes another path, which orders ties differently.
    """
    one_class = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return batched_nms(boxes.float(), scores, one_class, threshold)
