"""Numbers of float32 as the sum of two of float16, in kernels, and products of such numbers; see `split_linear.py`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def split(x):
    """float32 -> two of float16 that add up to it."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def split_dot(a_high, a_low, b_high, b_low, sum, SPLIT: tl.constexpr):
    """sum + a @ b, float32; of numbers in two parts all products but that of the two low ones."""
    sum = tl.dot(a_high, b_high, sum)
    if SPLIT:
        sum = tl.dot(a_low, b_high, sum)
        sum = tl.dot(a_high, b_low, sum)
    return sum
