"""LayerNorm of short rows by a Triton kernel against plain torch: interpreted where there is no GPU, compiled where
there is one."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from sam2_amg.kernels.layer_norm import layer_norm
from sam2_amg.network.layer_norm import normalise

EPS = 1e-6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def random_norm(channels: int) -> LayerNorm2d:
    norm = LayerNorm2d(channels, EPS).to(DEVICE)
    norm.weight.copy_(1 + 0.3 * random(channels, seed=1))
    norm.bias.copy_(0.3 * random(channels, seed=2))
    return norm


def by_kernel(norm: LayerNorm2d, x: Tensor, added: Tensor | None = None, with_gelu: bool = False) -> Tensor:
    return layer_norm(x, norm.weight, norm.bias, norm.eps, added, with_gelu)


def exact(norm: LayerNorm2d, x: Tensor, added: Tensor | None = None, with_gelu: bool = False) -> Tensor:
    """The twin in float64. What is added is so in float32, as in both."""
    if added is not None:
        x = (x.unflatten(0, (-1, len(added))) + added).flatten(0, 1)
    return normalise(deepcopy(norm).double(), x.double(), with_gelu=with_gelu)


@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize("with_gelu", [False, True])
@torch.inference_mode()
def test_rows_are_as_exact_as_torchs(channels: int, with_gelu: bool) -> None:
    """Numbers of rows that are no multiple of a tile's, which are 16 and 4, and none."""
    norm = random_norm(channels)
    for rows in (0, 1, 4, 7, 16, 33, 131):
        x = random(rows, channels, seed=rows)
        before = x.clone()
        found = by_kernel(norm, x, with_gelu=with_gelu)
        assert (found.shape, found.dtype) == (x.shape, torch.float32)
        torch.testing.assert_close(found.double(), exact(norm, x, with_gelu=with_gelu), rtol=1e-6, atol=1e-6)
        assert torch.equal(x, before)


@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize("with_gelu", [False, True])
@torch.inference_mode()
def test_what_is_added_repeats(channels: int, with_gelu: bool) -> None:
    norm = random_norm(channels)
    for count, times in ((1, 3), (5, 1), (8, 2), (67, 3), (67, 0)):
        x, added = random(times * count, channels), random(count, channels, seed=3)
        found = by_kernel(norm, x, added, with_gelu)
        torch.testing.assert_close(found.double(), exact(norm, x, added, with_gelu), rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_leading_dimensions_stay() -> None:
    norm, x, added = random_norm(64), random(3, 5, 4, 64), random(5, 4, 64, seed=3)
    found = by_kernel(norm, x, added.flatten(0, 1), with_gelu=True)
    expected = exact(norm, x + added, with_gelu=True)
    for each in (found, normalise(norm, x, added, with_gelu=True)):
        torch.testing.assert_close(each.double(), expected, rtol=1e-6, atol=2e-6)
    with pytest.raises(ValueError, match=r"the last dimensions of \(3, 5, 4, 64\), not \(5, 1, 64\)"):
        normalise(norm, x, added[:, :1])


@pytest.mark.parametrize("channels", [64, 256])
@torch.inference_mode()
def test_a_small_variance_beside_a_large_mean(channels: int) -> None:
    """Variance is of centred numbers: the difference of two mean squares would be wrong from the first digit on.

    A float32 sum of eight levels is off by 8 * 2^-24 of it at most, so the mean by 5e-4, or 5e-3 of the deviation.
    """
    norm, x = random_norm(channels), 1e3 + 0.1 * random(33, channels)
    assert (by_kernel(norm, x).double() - exact(norm, x)).abs().max() < 5e-3


@torch.inference_mode()
def test_a_constant_row_becomes_the_bias() -> None:
    """Sums of powers of two are exact."""
    norm = random_norm(64)
    for value in (0.0, -4.0, 1024.0):
        found = by_kernel(norm, torch.full((3, 64), value, device=DEVICE))
        assert torch.equal(found, norm.bias.expand(3, 64))


@torch.inference_mode()
def test_gelu_is_the_exact_one() -> None:
    """From far below zero, where it is tiny, to far above: the bias is the argument. That of gelu.py is not as near."""
    norm = random_norm(256)
    norm.bias.copy_(torch.linspace(-6, 6, 256))
    x = torch.zeros(1, 256, device=DEVICE)
    found, expected = by_kernel(norm, x, with_gelu=True).double(), exact(norm, x, with_gelu=True)
    torch.testing.assert_close(found, expected, rtol=3e-7, atol=4e-7)  # a last digit of 1 + erf, times the argument
    near = norm.bias.abs() < 1
    torch.testing.assert_close(found[:, near], expected[:, near], rtol=3e-7, atol=1e-7)


@torch.inference_mode()
def test_what_the_kernel_is_not_written_for_is_refused() -> None:
    norm = random_norm(64)
    call = partial(layer_norm, gain=norm.weight, bias=norm.bias, eps=EPS)
    x = random(6, 64)
    for wrong in (x.half(), x.double(), x[:, ::2], random(64, 6).mT):
        with pytest.raises(ValueError, match="contiguous and float32"):
            call(wrong)
    for added in (random(3, 64).half(), random(64, 3).mT):
        with pytest.raises(ValueError, match="contiguous and float32"):
            call(x, added=added)
    for channels in (0, 96, 4096):
        with pytest.raises(ValueError, match=f"a power of two, and at most 1024, not {channels}"):
            call(random(2, channels))
    with pytest.raises(ValueError, match=r"do not fit together: \(6, 128\), \(64,\), \(64,\)"):
        call(random(6, 128))
    for shape in ((4, 64), (0, 64), (12, 64), (6, 32), (64,), (2, 3, 64)):
        with pytest.raises(ValueError, match="do not fit together"):
            call(x, added=random(*shape))


@torch.inference_mode()
def test_modules_give_what_torch_gives() -> None:
    """On a GPU by the kernel, for float32; for other types, and elsewhere, by torch, to the last bit."""
    norm = nn.LayerNorm(256).to(DEVICE)
    norm.weight.copy_(random(256, seed=1))
    x = random(2, 3, 5, 256)
    added = random(5, 256, seed=3).expand(3, 5, 256)
    expected = nn.functional.gelu(norm(x + added))
    torch.testing.assert_close(normalise(norm, x, added, with_gelu=True), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(normalise(norm, x.mT.contiguous().mT), norm(x), rtol=1e-6, atol=1e-6)
    for dtype in (torch.float64, torch.float16):
        assert torch.equal(normalise(norm.to(dtype), x.to(dtype)), norm(x.to(dtype)))
