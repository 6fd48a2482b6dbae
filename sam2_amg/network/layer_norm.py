"""LayerNorm in float32 by our kernel on a GPU, and by torch elsewhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from sam2_amg.kernels.layer_norm import layer_norm


def normalise(
    norm: nn.LayerNorm | LayerNorm2d, x: Tensor, added: Tensor | None = None, with_gelu: bool = False
) -> Tensor:
    """`norm` of `x` [..., C], to which `added`, of its last dimensions, is added before; GELU after it if `with_gelu`.

    On a GPU, float32 goes to the kernel, unless a compiler traces, which has kernels of its own, or gradients are
    wanted, which ours has not. Raises ValueError if `added` has other dimensions.
    """
    if added is not None and added.shape != x.shape[x.ndim - added.ndim :]:
        raise ValueError(f"what is added must have the last dimensions of {tuple(x.shape)}, not {tuple(added.shape)}")
    wanted = torch.is_grad_enabled() and (x.requires_grad or norm.weight.requires_grad)
    if x.is_cuda and x.dtype == torch.float32 and not wanted and not torch.compiler.is_compiling():
        rows = None if added is None else added.flatten(0, -2).contiguous()  # [M, C]
        return layer_norm(x.contiguous(), norm.weight, norm.bias, norm.eps, rows, with_gelu)
    y = F.layer_norm(x if added is None else x + added, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    return F.gelu(y) if with_gelu else y


def without_mean(x: Tensor) -> Tensor:
    """Rows [..., C] less their means. Where all terms of a sum are such rows, LayerNorm has no mean to subtract."""
    return x - x.mean(-1, keepdim=True)
