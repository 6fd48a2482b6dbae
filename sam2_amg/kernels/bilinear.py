"""Bilinear upsampling inside kernels, float32, by the rule of `F.interpolate(mode="bilinear", align_corners=False)`.

Output pixel i of n reads input pixels floor(s) and floor(s) + 1 (the last one at the edge), where
s = max(m / n * (i + 0.5) - 0.5, 0) for m input pixels, with weights 1 - frac(s) and frac(s). Columns are mixed before
rows, as in PyTorch, so results differ from PyTorch's only by rounding. Products that are added to something are fused
multiply-adds, so that a compiler has no choice: a pixel that two programs compute has the same value in both.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl
from torch import Tensor

_HUGE = tl.constexpr(1e30)
_ROUNDING = tl.constexpr(1e-6)  # relative rounding error of a mix of two numbers: eight times the maximum


def scale_of(inputs: int, outputs: int) -> float:
    """m / n of m inputs and n outputs, rounded to float32 as in PyTorch."""
    return float(np.float32(inputs) / np.float32(outputs))


def scales_of(logits: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """Both scales, (rows, columns), from low-res logits [n, h, w] to `size` (height, width)."""
    return scale_of(logits.shape[1], size[0]), scale_of(logits.shape[2], size[1])


@triton.jit
def place_of(output, scale):
    """Output pixel(s) -> position among the input pixels, s above."""
    return tl.maximum(tl.fma(output.to(tl.float32) + 0.5, scale, -0.5), 0.0)


@triton.jit
def first_of(output, scale, inputs):
    """Output pixel(s) -> the first of the two input pixels that they mix."""
    return tl.minimum(place_of(output, scale).to(tl.int32), inputs - 1)


@triton.jit
def source_of(output, scale, inputs):
    """Output pixel(s) -> the two input pixels that they mix, and the weight of the second."""
    first = first_of(output, scale, inputs)
    second = tl.minimum(first + 1, inputs - 1)
    return first, second, tl.minimum(place_of(output, scale) - first.to(tl.float32), 1.0)


@triton.jit
def rows_until(input_row, scale, inputs, y, end):
    """The first output row after `y` that reads from `input_row` or below, at most `end`.

    A division gives an estimate, and `first_of` corrects it.
    """
    about = ((input_row.to(tl.float32) + 0.5) / scale - 0.5).to(tl.int32)
    until = tl.minimum(tl.maximum(about, y + 1), end)
    while (until > y + 1) & (first_of(until - 1, scale, inputs) >= input_row):
        until -= 1
    while (until < end) & (first_of(until, scale, inputs) < input_row):
        until += 1
    return until


@triton.jit
def mix_columns(row_pointer, first, second, weight, lanes):
    """One input row, interpolated at output columns: [BLOCK] float32."""
    left = tl.load(row_pointer + first, mask=lanes, other=0.0).to(tl.float32)
    right = tl.load(row_pointer + second, mask=lanes, other=0.0).to(tl.float32)
    return tl.fma(1.0 - weight, left, weight * right)


@triton.jit
def mix_rows(upper, lower, weight):
    """Two results of `mix_columns`, interpolated at an output row: [BLOCK] float32."""
    return tl.fma(1.0 - weight, upper, weight * lower)


@triton.jit
def bounds(upper, lower):
    """Lower and upper bound of any mix of two rows, rounding included."""
    slack = _ROUNDING * tl.minimum(tl.abs(upper) + tl.abs(lower), _HUGE)  # infinity minus infinity would be NaN
    return tl.minimum(upper, lower) - slack, tl.maximum(upper, lower) + slack
