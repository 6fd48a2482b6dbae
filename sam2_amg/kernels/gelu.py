"""GELU within kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gelu(x):
    """x times the normal distribution function, with an error of at most 1e-6.

    Formula 7.1.28 of Abramowitz and Stegun, with coefficients scaled from x / sqrt(2) to x. The inverse 16th power uses
    the GPU's reciprocal square root. It takes less than half as many instructions as `erf`.
    """
    size = tl.abs(x)
    power = 5.3830e-6
    power = 4.88906e-5 + size * power
    power = 3.80036e-5 + size * power
    power = 3.2776263e-3 + size * power
    power = 2.11410061e-2 + size * power
    power = 4.98673470e-2 + size * power
    power = 1.0 + size * power
    inverse = tl.rsqrt(power * power)
    inverse *= inverse
    inverse *= inverse
    inverse *= inverse
    inverse *= inverse
    return tl.maximum(x, 0.0) - 0.5 * size * inverse
