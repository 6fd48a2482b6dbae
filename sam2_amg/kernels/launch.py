"""What every launcher checks before it starts a kernel."""

from __future__ import annotations

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
            f"{name} is on {tensor.device}, and Triton kernels run on CUDA; elsewhere use its twin in plain torch"
        )


def require_contiguous(tensor: Tensor, name: str, ndim: int) -> None:
    """Raises ValueError unless `tensor` is a contiguous float tensor of `ndim` dimensions."""
    if tensor.ndim != ndim or tensor.dtype not in _FLOATS:
        raise ValueError(
            f"{name} must be a float tensor of {ndim} dimensions, not {tensor.dtype} {tuple(tensor.shape)}"
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, and has strides {tensor.stride()}")


def launcher(kernel: triton.JITFunction) -> Any:
    """The kernel as a compiled graph can hold it, to be called inside a `triton_op`; the interpreter has no graphs."""
    return kernel if knobs.runtime.interpret else wrap_triton(kernel)
