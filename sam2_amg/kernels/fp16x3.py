"""fp16x3: float32 products emulated on float16 tensor cores. `network/fp16x3_linear.py` explains it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.gelu import gelu
from sam2_amg.kernels.launch import launcher, require_kernel_device

LAUNCH = {"BLOCK": 1024, "num_warps": 4}


@triton.jit
def to_fp16_pair(x):
    """float32 -> high and low part, float16, whose sum is x up to rounding."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def load_pair(pointer, further, place, FP16X3: tl.constexpr):
    """What lies at `place` of a matrix in float16, and of its low parts, which lie `further` numbers on."""
    high = tl.load(pointer + place)
    low = high
    if FP16X3:
        low = tl.load(pointer + further + place)
    return high, low


@triton.jit
def dot_fp16x3(a_high, a_low, b_high, b_low, sum, FP16X3: tl.constexpr):
    """sum + a @ b, float32. FP16X3 adds all products of parts except low times low; otherwise only high times high.

    Tensor cores round each addition toward zero. A long loop should therefore give zeros as `sum` and add outside: the
    errors of thousands of such additions are larger than those of the products.
    """
    sum = tl.dot(a_high, b_high, sum)
    if FP16X3:
        sum = tl.dot(a_low, b_high, sum)
        sum = tl.dot(a_high, b_low, sum)
    return sum


@triton.jit
def fp16_parts_kernel(x, parts, count, BLOCK: tl.constexpr):
    """A program splits BLOCK of `count` numbers: all high parts, then all low parts."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = place < count
    high, low = to_fp16_pair(tl.load(x + place, mask=real, other=0.0))
    tl.store(parts + place, high, mask=real)
    tl.store(parts + count + place, low, mask=real)


@triton_op("sam2_amg::fp16_parts", mutates_args={})
def fp16_parts(x: Tensor) -> Tensor:
    """Float32 [...] -> float16 [2, ...]: high parts and low parts. Raises ValueError for other devices and dtypes.

    A compiler that fuses the casts would compute low parts as zero. Twin: `network.fp16x3_linear.to_fp16_pair`.
    """
    require_kernel_device(x, "x")
    if x.dtype != torch.float32:
        raise ValueError(f"what is split into two parts must be float32, not {x.dtype}")
    x = x.contiguous()
    parts = x.new_empty(2, *x.shape, dtype=torch.float16)
    launcher(fp16_parts_kernel)[(triton.cdiv(x.numel(), LAUNCH["BLOCK"]),)](x, parts, x.numel(), **LAUNCH)
    return parts


@triton.jit
def fp16x3_rows_kernel(x, bias, parts, count, width, SCALE: tl.constexpr, GELU: tl.constexpr, BLOCK: tl.constexpr):
    """A program splits BLOCK of `count` numbers. Rows of `width` become rows of low part, high part, high part."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = place < count
    number = tl.load(x + place, mask=real, other=0.0)
    if GELU:
        number = gelu(number * SCALE + tl.load(bias + place % width, mask=real, other=0.0))
    high, low = to_fp16_pair(number)
    out = parts + place + place // width * (2 * width)
    tl.store(out, low, mask=real)
    tl.store(out + width, high, mask=real)
    tl.store(out + 2 * width, high, mask=real)


@triton_op("sam2_amg::fp16x3_rows", mutates_args={})
def fp16x3_rows(x: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Rows of float32 [N, K] -> float16 [N, 3 K]: low part, high part, high part, for `Fp16x3Linear`.

    With a `bias`, float32 [K], they are the parts of GELU(x * scale + bias). It is one kernel, because a compiler that
    fuses the three parts would compute x three times. Raises ValueError for other devices, and for another bias. Twin:
    `network.fp16x3_linear.in_three`.
    """
    require_kernel_device(x, "x")
    x = x.contiguous()
    rows, width = x.shape
    if bias is not None and ((bias.shape, bias.dtype) != ((width,), torch.float32) or not bias.is_contiguous()):
        raise ValueError(f"bias must be contiguous float32 ({width},), not {bias.dtype} {tuple(bias.shape)}")
    parts = x.new_empty(rows, 3 * width, dtype=torch.float16)
    launcher(fp16x3_rows_kernel)[(triton.cdiv(rows * width, LAUNCH["BLOCK"]),)](
        x, x if bias is None else bias, parts, rows * width, width, SCALE=scale, GELU=bias is not None, **LAUNCH
    )
    return parts
