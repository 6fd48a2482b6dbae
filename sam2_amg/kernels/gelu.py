"""GELU within kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """x times the normal distribution function, with an error of at most 5e-7 beside rounding.

    The tail of the distribution beyond |x| is a power of two, whose exponent is nearly a polynomial in |x|. This one of
    degree 5 is a minimax fit for |x| up to 6.5, weighted with what an error adds to GELU (Lawson's algorithm, in
    float64); beyond 6.5, it falls. A number takes eight instructions.
    """
    size = tl.abs(x)
    exponent = 7.08455713e-3 - size * 4.73309288e-4
    exponent = -5.18273827e-2 + size * exponent
    exponent = -4.59992439e-1 + size * exponent
    exponent = -1.15078785 + size * exponent
    exponent = -1.00003762 + size * exponent
    return tl.maximum(x, 0.0) - size * tl.exp2(exponent)
