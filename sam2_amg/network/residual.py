"""An addition to the encoder's residual stream and its LayerNorm. On a GPU by one kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.utils import window_partition, window_unpartition
from torch import Tensor, nn

from sam2_amg.kernels.residual_norm import padded_side, residual_norm
from sam2_amg.network.addend import Addend


def add_and_normalise(
    x: Tensor, addend: Addend, norm: nn.LayerNorm, from_window: int, to_window: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """x + addend, float32 [n, h, h, C], and its LayerNorm in `dtype`, float32 or float16.

    The addend's rows are in windows of `from_window` tokens a side, or in the order of the image for 0. So is the norm
    with `to_window`: [windows, to_window, to_window, C], or [n, h, h, C]. Raises ValueError for another dtype.
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"the norm is float32 or float16, not {dtype}")
    if not x.is_cuda:
        return add_and_normalise_in_torch(x, addend, norm, from_window, to_window, dtype)
    total, rows = residual_norm(
        x.contiguous(), addend.rows, addend.bias, norm.weight, norm.bias, addend.scale, norm.eps,
        from_window, to_window, dtype == torch.float16,
    )  # fmt: skip
    size = (to_window or x.shape[1],) * 2
    return total, rows.unflatten(0, (-1, *size))


def add_and_normalise_in_torch(
    x: Tensor, addend: Addend, norm: nn.LayerNorm, from_window: int, to_window: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`add_and_normalise` without the kernel."""
    total = x + to_image(addend.finish(), x.shape[1], from_window)
    normed = F.layer_norm(total, norm.weight.shape, norm.weight, norm.bias, norm.eps).to(dtype)
    return total, window_partition(normed, to_window)[0] if to_window else normed


def to_image(rows: Tensor, side: int, window: int) -> Tensor:
    """Rows [N, C] of images or of windows -> [n, side, side, C]."""
    if not window:
        return rows.unflatten(0, (-1, side, side))
    padded = padded_side(side, window)
    return window_unpartition(rows.unflatten(0, (-1, window, window)), window, (padded, padded), (side, side))
