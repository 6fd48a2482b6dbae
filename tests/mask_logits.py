"""Low-res logits of every kind that masks come in."""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY, FULL, PIXEL, STRIPES, ROWS = range(5)


def logits_of_all_kinds(h: int = 32, w: int = 24) -> Tensor:
    """Empty, full, a single pixel, stripes of period 2 both ways, and smooth random masks. float32 [10, h, w]"""
    torch.manual_seed(0)
    special = torch.full((5, h, w), -5.0)
    special[FULL] = 5.0
    special[PIXEL, h // 2, w // 3] = 20.0
    special[STRIPES, :, ::2] = 5.0
    special[ROWS, 1::2] = 5.0
    smooth = torch.nn.functional.interpolate(torch.randn(5, 1, 6, 5) * 4, (h, w), mode="bicubic")[:, 0]
    return torch.cat([special, smooth])
