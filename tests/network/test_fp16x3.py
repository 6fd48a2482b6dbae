"""Products of float32's accuracy by float16, fp16x3: linear layers, and a whole encoder."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_utils import MLP
from torch import nn

from sam2_amg.kernels.fp16x3 import fp16x3_rows
from sam2_amg.kernels.linear import fp16x3_linear
from sam2_amg.network.fp16x3_linear import (
    Fp16x3Linear,
    Fp16x3Mlp,
    to_fp16_pair,
)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (64, 144, 432), (2, 3, 576, 48)], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@torch.inference_mode()
def test_fp16x3_products_are_as_exact_as_float32(shape: tuple[int, ...], scale: float) -> None:
    torch.manual_seed(0)
    *rows, inputs, outputs = shape
    linear = nn.Linear(inputs, outputs, bias=scale != 1.0).to(DEVICE)
    x = torch.randn(*rows, inputs, device=DEVICE) * scale
    expected = deepcopy(linear).double()(x.double())
    found = Fp16x3Linear(linear)(x)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    norms = x.double().norm(dim=-1, keepdim=True) * linear.weight.double().norm(dim=1)
    assert ((found - expected).abs() <= 2.0**-20 * norms + 1e-7).all()
    halves = (x.half() @ linear.weight.half().T).double() + (0 if linear.bias is None else linear.bias)
    if x.numel() > 1000 and scale == 1.0:  # what it is for: products of float16 alone are far off
        assert (halves - expected).norm() > 50 * (found - expected).norm()


@pytest.mark.parametrize("activation", ["", "gelu", "relu"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (130, 144, 70), (257, 64, 144)], ids=str)
@torch.inference_mode()
def test_one_kernel_computes_what_one_product_does(shape: tuple[int, int, int], activation: str) -> None:
    torch.manual_seed(0)
    count, inputs, outputs = shape
    linear = nn.Linear(inputs, outputs)
    layer, rows = Fp16x3Linear(linear, activation), torch.randn(count, inputs) * 30
    expected = deepcopy(linear).double()(rows.double())
    exact = {"": nn.Identity(), "gelu": nn.GELU(), "relu": nn.ReLU()}[activation](expected)
    half = activation == "gelu"
    for found in (layer.as_one_product(rows), layer.to(DEVICE).in_one_kernel(rows.to(DEVICE)).cpu()):
        assert found.dtype == (torch.float16 if half else torch.float32)
        norms = rows.double().norm(dim=-1, keepdim=True) * linear.weight.norm(dim=1)
        assert ((found - exact).abs() <= 2.0**-20 * norms + half * 2.0**-11 * exact.abs() + 2e-6).all()
    low, high, again = layer.in_one_kernel(rows.to(DEVICE), in_parts=True).cpu().split(outputs, dim=1)
    assert torch.equal(high, again)
    assert ((high.double() + low - exact).abs() <= 2.0**-20 * (norms + exact.abs()) + 2e-6).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (65, 48)], ids=str)
def test_rows_made_by_a_kernel_are_those_made_by_torch(shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 100
    hi, lo = to_fp16_pair(x)
    found = fp16x3_rows(x.to(DEVICE))
    assert torch.equal(found.cpu(), torch.cat([lo, hi, hi], dim=1))


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (65, 48)], ids=str)
def test_rows_behind_gelu_are_parts_of_it(shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    x, bias = torch.randn(*shape, generator=random) * 8, torch.randn(shape[1], generator=random)
    low, high, again = fp16x3_rows(x.to(DEVICE), bias.to(DEVICE), 0.25).cpu().split(shape[1], dim=1)
    assert torch.equal(high, again)
    expected = torch.nn.functional.gelu(x.double() * 0.25 + bias)
    assert (high.double() + low - expected).abs().max() < 2e-6


@pytest.mark.parametrize("shape", [(1, 1, 24), (5, 13, 16), (257, 300)], ids=str)  # the last has long rows
@pytest.mark.parametrize("activation", [nn.GELU, nn.ReLU])
@torch.inference_mode()
def test_an_mlp_is_as_exact_as_float32(shape: tuple[int, ...], activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    width = shape[-1]
    mlp = MLP(width, 4 * width, width, 2, activation)
    x = torch.randn(*shape)
    expected = deepcopy(mlp).double()(x.double())
    for found in (Fp16x3Mlp(mlp)(x), Fp16x3Mlp(mlp).to(DEVICE)(x.to(DEVICE)).cpu()):
        assert found.dtype == torch.float32
        assert found.shape == x.shape
        assert (found - expected).abs().max() < 4e-6


def test_another_mlp_is_refused() -> None:
    with pytest.raises(ValueError, match="two layers with GELU or ReLU between"):
        Fp16x3Mlp(MLP(4, 8, 4, 3))


def test_fp16x3_product_of_zeros() -> None:
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight)
    assert torch.equal(Fp16x3Linear(linear)(torch.ones(2, 4)), linear.bias.expand(2, 3))


@torch.inference_mode()
def test_what_does_not_fit_together_is_refused() -> None:
    rows, bias = torch.zeros(3, 8, device=DEVICE), torch.zeros(4, device=DEVICE)
    high, short = (torch.zeros(inputs, 4, device=DEVICE, dtype=torch.float16) for inputs in (8, 7))
    assert fp16x3_linear(rows[:0], high, high, bias, 1.0).shape == (0, 4)
    for wrong in ((rows, high, short, bias), (rows, short, short, bias), (rows.half(), high, high, bias)):
        with pytest.raises(ValueError, match="rows, weights and bias do not fit together"):
            fp16x3_linear(*wrong, 1.0)
    with pytest.raises(ValueError, match="activation must be"):
        fp16x3_linear(rows, high, high, bias, 1.0, "tanh")
