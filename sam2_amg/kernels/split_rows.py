"""Rows of float32 -> rows of three float16: high part, low part, high part again, as `SplitLinear` multiplies them.

Twin: `split_linear.split`. In one kernel, because a compiler that fuses the three would compute what makes x thrice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.launch import launcher, require_kernel_device
from sam2_amg.kernels.split_products import split

LAUNCH = {"BLOCK": 1024, "num_warps": 4}


@triton.jit
def split_rows_kernel(x, parts, count, width, BLOCK: tl.constexpr):
    """A program splits BLOCK of `count` numbers, rows of `width`."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = place < count
    high, low = split(tl.load(x + place, mask=real, other=0.0))
    out = parts + place + place // width * (2 * width)
    tl.store(out, high, mask=real)
    tl.store(out + width, low, mask=real)
    tl.store(out + 2 * width, high, mask=real)


@triton_op("sam2_amg::split_rows", mutates_args={})
def split_rows(x: Tensor) -> Tensor:
    """Float32 [N, K] -> float16 [N, 3 K]. Raises ValueError for other devices."""
    require_kernel_device(x, "x")
    x = x.contiguous()
    rows, width = x.shape
    parts = x.new_empty(rows, 3 * width, dtype=torch.float16)
    launcher(split_rows_kernel)[(triton.cdiv(rows * width, LAUNCH["BLOCK"]),)](x, parts, rows * width, width, **LAUNCH)
    return parts
