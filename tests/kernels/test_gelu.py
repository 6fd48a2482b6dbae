"""GELU within kernels against torch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from helpers import DEVICE

from sam2_amg.kernels.gelu import gelu


@triton.jit
def gelu_kernel(x, y, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + place, gelu(tl.load(x + place)))


@pytest.mark.parametrize("largest", [0.01, 1.0, 8.0, 65504.0])
def test_gelu_is_as_exact_as_it_says(largest: float) -> None:
    x = torch.linspace(-largest, largest, 1 << 14, device=DEVICE)
    x[0] = 0
    y = torch.empty_like(x)
    gelu_kernel[(4,)](x, y, BLOCK=1 << 12)
    expected = F.gelu(x.double())
    assert ((y - expected).abs() <= 5e-7 + 1e-7 * x.abs()).all()  # the second is float32's rounding
    assert y[0] == 0


def test_gelu_keeps_what_is_far_above_zero_and_drops_what_is_far_below() -> None:
    x = torch.full((1 << 12,), 30.0, device=DEVICE)
    x[::2] = -30.0
    y = torch.empty_like(x)
    gelu_kernel[(1,)](x, y, BLOCK=1 << 12)
    assert (y[1::2] == 30).all()
    assert (y[::2] == 0).all()
