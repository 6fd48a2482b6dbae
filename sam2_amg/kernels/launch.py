"""Checks of kernel arguments, and the launch of kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.library import wrap_triton
from triton import knobs

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def require_kernel_device(tensor: Tensor, name: str) -> None:
    """Raises ValueError unless `tensor` is on a GPU, or kernels are interpreted (TRITON_INTERPRET=1)."""
    if not tensor.is_cuda and not knobs.runtime.interpret:
        raise ValueError(
            f"{name} is on {tensor.device}, but Triton kernels need CUDA; use the kernel's plain-torch twin elsewhere"
        )


def require_contiguous(tensor: Tensor, name: str, ndim: int) -> None:
    """Raises ValueError unless `tensor` is a contiguous float tensor of `ndim` dimensions."""
    if tensor.ndim != ndim or tensor.dtype not in _FLOATS:
        raise ValueError(
            f"{name} must be a float tensor of {ndim} dimensions, not {tensor.dtype} {tuple(tensor.shape)}"
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, but has strides {tensor.stride()}")


def require_layer(x: Tensor, dtype: torch.dtype, weights: Sequence[Tensor], bias: Tensor) -> None:
    """Raises ValueError unless rows `x` [N, K] of `dtype`, float16 `weights` [K, M] and a float32 `bias` [M] are
    contiguous and fit together, where kernels run."""
    require_kernel_device(x, "x")
    for tensor, name, ndim in ((x, "x", 2), *((weight, "weights", 2) for weight in weights), (bias, "bias", 1)):
        require_contiguous(tensor, name, ndim)
    fit = all(weight.shape == (x.shape[1], len(bias)) and weight.dtype == torch.float16 for weight in weights)
    if not fit or (x.dtype, bias.dtype) != (dtype, torch.float32):
        given = ", ".join(f"{each.dtype} {tuple(each.shape)}" for each in (x, *weights, bias))
        raise ValueError(f"rows, weights and bias do not fit together: {given}")


def launcher(kernel: triton.JITFunction) -> Any:
    """Wraps a kernel for a launch inside a `triton_op`, so that torch.compile can trace it. Not if interpreted."""
    return kernel if knobs.runtime.interpret else wrap_triton(kernel)
