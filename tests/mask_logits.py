"""Low-res logits of every kind that masks come in."""

from __future__ import annotations

import torch
from torch import Tensor

from sam2_amg.postprocess.mask_stats import upsample

EMPTY, FULL, PIXEL, STRIPES, ROWS = range(5)
# Values are at most 20 here; four roundings of float32 move one by less than this.
ROUNDING = 20 * 4 * 2**-24


def logits_of_all_kinds(h: int = 32, w: int = 24, smooth: int = 5) -> Tensor:
    """Empty, full, a single pixel, stripes of period 2 both ways, smooth random masks. float32 [5 + smooth, h, w]"""
    torch.manual_seed(0)
    special = torch.full((5, h, w), -5.0)
    special[FULL] = 5.0
    special[PIXEL, h // 2, w // 3] = 20.0
    special[STRIPES, :, ::2] = 5.0
    special[ROWS, 1::2] = 5.0
    random = torch.nn.functional.interpolate(torch.randn(smooth, 1, 6, 5) * 4, (h, w), mode="bicubic")[:, 0]
    return torch.cat([special, random])


def away_from(logits: Tensor, size: tuple[int, int], thresholds: tuple[float, ...]) -> Tensor:
    """The masks none of whose values, upsampled to `size`, is within rounding of a threshold. bool [n]"""
    values = upsample(logits, size)
    near = torch.stack([(values - threshold).abs() <= ROUNDING for threshold in thresholds]).any(0)
    return ~near.flatten(1).any(1)
