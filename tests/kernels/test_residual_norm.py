"""An addition and LayerNorm in one kernel against plain torch: interpreted where there is no GPU, compiled where there
is one."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from helpers import DEVICE
from torch import Tensor, nn

from sam2_amg.kernels.residual_norm import residual_norm, tokens_of
from sam2_amg.network.addend import Addend
from sam2_amg.network.residual import add_and_normalise

EPS = 1e-6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_norm(channels: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(channels, EPS).requires_grad_(False)
    norm.weight.copy_(1 + 0.3 * random(channels, seed=1))
    norm.bias.copy_(0.3 * random(channels, seed=2))
    return norm


def by_kernel(
    x: Tensor, addend: Addend, norm: nn.LayerNorm, from_window: int, to_window: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    bias = None if addend.bias is None else addend.bias.to(DEVICE)
    tensors = (each.to(DEVICE) for each in (x, addend.rows))
    vectors = (each.to(DEVICE) for each in (norm.weight, norm.bias))
    windows = from_window, to_window, dtype == torch.float16
    total, normed = residual_norm(*tensors, bias, *vectors, addend.scale, norm.eps, *windows)
    return total.cpu(), normed.cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("images", "side", "channels", "from_window", "to_window"),
    [
        (1, 1, 1, 0, 0),
        (1, 1, 3, 1, 2),
        (2, 4, 16, 0, 0),
        (1, 8, 144, 0, 4),
        (1, 8, 144, 4, 0),
        (2, 10, 40, 7, 0),  # the last windows are padded
        (2, 10, 40, 0, 7),
        (3, 5, 96, 2, 3),
        (1, 4, 1152, 0, 2),  # a row of a whole tile
        (1, 2, 2500, 2, 0),  # more than a tile
    ],
)
@torch.inference_mode()
def test_sums_and_norms_equal_torchs(
    images: int, side: int, channels: int, from_window: int, to_window: int, dtype: torch.dtype
) -> None:
    x, norm = random(images, side, side, channels), random_norm(channels)
    rows = random(tokens_of(images, side, from_window), channels, seed=3)
    before = x.clone(), rows.clone()
    bias = 0.5 * random(channels, seed=4)
    for addend in (Addend(rows), Addend(rows, None, 0.5), Addend(rows, bias, 0.25)):
        expected = add_and_normalise(x, addend, norm, from_window, to_window, dtype)
        total, normed = by_kernel(x, addend, norm, from_window, to_window, dtype)
        torch.testing.assert_close(total, expected[0], rtol=1e-6, atol=1e-6)
        assert normed.dtype == dtype
        rounding = {"rtol": 2.0**-10, "atol": 1e-5} if dtype == torch.float16 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(normed, expected[1].flatten(0, -2), **rounding)
        assert all(map(torch.equal, (x, rows), before))


@torch.inference_mode()
def test_padding_is_zero_and_its_addend_is_not_read() -> None:
    """sam2 pads what is normalised, so that padding is zero, not the norm's bias."""
    x, norm = random(1, 3, 3, 8), random_norm(8)
    rows = torch.full((tokens_of(1, 3, 2), 8), torch.nan)
    in_image = torch.tensor([0, 1, 2, 3, 4, 6, 8, 9, 12])  # of four windows of two by two tokens, those in the image
    rows[in_image] = 0
    total, normed = by_kernel(x, Addend(rows), norm, 2, 2, torch.float32)
    assert torch.equal(total, x)
    assert normed[in_image].isfinite().all()
    padding = torch.ones(16, dtype=torch.bool)
    padding[in_image] = False
    assert not normed[padding].any()


@torch.inference_mode()
def test_a_small_variance_beside_a_large_mean() -> None:
    """Variance is of centred numbers: the difference of two mean squares would be wrong from the first digit on."""
    x, norm = 1e3 + 0.1 * random(1, 4, 4, 144), random_norm(144)
    zeros = Addend(torch.zeros(16, 144))
    expected = deepcopy(norm).double()(x.double()).flatten(0, -2)
    _, normed = by_kernel(x, zeros, norm, 0, 0, torch.float32)
    assert (normed - expected).abs().max() < 5e-3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@torch.inference_mode()
def test_a_gpu_gives_what_a_cpu_gives(dtype: torch.dtype) -> None:
    """Of a stream that is not contiguous, as a pooled shortcut is."""
    x, norm = random(2, 96, 8, 8).permute(0, 2, 3, 1), random_norm(96)
    addend = Addend(random(tokens_of(2, 8, 4), 96, seed=3), random(96, seed=4), 0.5)
    expected = add_and_normalise(x, addend, norm, 4, 3, dtype)
    on_gpu = Addend(addend.rows.cuda(), addend.bias.cuda(), addend.scale)
    found = add_and_normalise(x.cuda(), on_gpu, deepcopy(norm).cuda(), 4, 3, dtype)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=2.0**-10, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    x, rows, vector = random(1, 4, 4, 8).to(DEVICE), random(16, 8).to(DEVICE), random(8).to(DEVICE)
    call = partial(residual_norm, scale=1.0, eps=EPS, to_window=0, to_float16=False)
    for wrong in ((x[:, :2], rows), (x, rows[:9]), (x[0], rows), (x[0, 0, 0], rows), (x, rows[:, :4])):
        with pytest.raises(ValueError, match="do not fit together with windows of 0"):
            call(*wrong, None, vector, vector, from_window=0)
    with pytest.raises(ValueError, match="do not fit together with windows of 0"):
        call(x, rows, vector[:4], vector, vector, from_window=0)
    with pytest.raises(ValueError, match="do not fit together with windows of 3"):
        call(x, rows, None, vector, vector, from_window=3)
    for wrong in ((x.half(), rows), (x.transpose(1, 2), rows), (x, rows.double()), (x, rows.T.contiguous().T)):
        with pytest.raises(ValueError, match="must be contiguous float32"):
            call(*wrong, None, vector, vector, from_window=0)
    with pytest.raises(ValueError, match=r"float32 or float16, not torch\.float64"):
        add_and_normalise(x, Addend(rows), nn.LayerNorm(8), 0, 0, torch.float64)
