"""Measurements by Triton kernels against their plain-torch twin: interpreted where there is no GPU, compiled where
there is one."""

from __future__ import annotations

import pytest
import torch
from helpers import DEVICE
from mask_logits import EMPTY, FULL, PIXEL, ROUNDING, away_from, logits_of_all_kinds
from torch import Tensor

from sam2_amg.kernels import mask_stats as kernel
from sam2_amg.postprocess import mask_stats as plain

DTYPES = [torch.float32, torch.float16]
SIZES = [(1, 1), (1, 7), (9, 1), (16, 24), (17, 70), (300, 5)]  # the last two are two programs wide, and tall
LARGE = [(534, 800), (1200, 1800), (8192, 17), (17, 8192), (8192, 8192)]
MEMORY = 1 << 28
SMOOTH = 5 if DEVICE.type == "cuda" else 1  # masks: the interpreter takes as long for each as for the one before


def few_logits(h: int = 16, w: int = 24) -> Tensor:
    return logits_of_all_kinds(h, w, SMOOTH).to(DEVICE)


def assert_same_stats(logits: Tensor, size: tuple[int, int], threshold: float, offset: float) -> None:
    """Equal for masks away from the thresholds; for the others, no more pixels differ than are near one."""
    expected = plain.mask_stats(logits, size, threshold, offset, MEMORY)
    found = kernel.mask_stats(logits, size, threshold, offset)
    clear = away_from(logits, size, (threshold - offset, threshold, threshold + offset))
    values = plain.upsample(logits, size)
    for name, level in (("above_high", threshold + offset), ("area", threshold), ("above_low", threshold - offset)):
        a, b = getattr(expected, name), getattr(found, name)
        assert a.dtype == b.dtype == torch.int32
        assert torch.equal(a[clear], b[clear]), name
        assert ((a - b).abs() <= ((values - level).abs() <= ROUNDING).flatten(1).sum(1)).all(), name
    assert torch.equal(expected.boxes[clear], found.boxes[clear])
    assert found.boxes.dtype == torch.int64


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_measurements_equal_the_twins(size: tuple[int, int], dtype: torch.dtype) -> None:
    assert_same_stats(few_logits().to(dtype), size, 0.0, 1.0)


@pytest.mark.parametrize("size", [(96, 200), (60, 30)], ids=str)  # tiles of enough columns, and of too many
def test_tiles_that_a_mask_fills_cuts_and_leaves_out(size: tuple[int, int]) -> None:
    logits = torch.full(
        (3, 48, 80), -8.0, device=DEVICE
    )  # a tile has 8 rows, the last of which is the next one's first
    logits[0, :22, :50] = 8.0  # three tiles, and more columns than one
    logits[1, 13:16, 30:] = 0.5  # the end of a tile and the beginning of the next; between two thresholds
    logits[2] = 8.0
    logits[2, 47, 79] = -8.0
    assert_same_stats(logits, size, 0.0, 1.0)


@pytest.mark.parametrize("place", [(0, 0), (7, 25), (30, 40), (47, 79)], ids=str)
def test_one_number_that_is_not_finite_in_a_tile_is_found(place: tuple[int, int]) -> None:
    logits = torch.full((1, 48, 80), -8.0, device=DEVICE)
    logits[0, *place] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        kernel.mask_stats(logits, (96, 200), 0.0, 1.0).require_finite()


@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 0.0), (0.5, 2.0), (-1.0, 0.25)])
def test_measurements_at_other_thresholds(threshold: float, offset: float) -> None:
    assert_same_stats(few_logits(), (37, 41), threshold, offset)


def test_measurements_are_exact_away_from_thresholds() -> None:
    """Most masks of this set have no value near a threshold: the comparison above is about something."""
    logits = few_logits()
    clear = away_from(logits, (31, 60), (-1.0, 0.0, 1.0))
    assert clear.sum() >= len(logits) - 2
    found = kernel.mask_stats(logits, (31, 60), 0.0, 1.0)
    assert found.area[EMPTY] == 0
    assert found.boxes[EMPTY].tolist() == [0, 0, 0, 0]
    assert found.stability[EMPTY].isnan()
    assert found.area[FULL] == 31 * 60
    assert found.boxes[FULL].tolist() == [0, 0, 59, 30]


@pytest.mark.parametrize("side", [1, 2])
def test_tiny_logits(side: int) -> None:
    assert_same_stats(few_logits(side, side), (9, 13), 0.0, 1.0)


def test_no_masks() -> None:
    found = kernel.mask_stats(torch.zeros(0, 16, 24, device=DEVICE), (50, 60), 0.0, 1.0)
    assert found.area.shape == found.stability.shape == (0,)
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("mask_stats", [kernel.mask_stats, lambda *a: plain.mask_stats(*a, memory=MEMORY)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_is_refused(mask_stats, value: float) -> None:
    """Be it in the last corner of the last mask."""
    logits = few_logits()[: PIXEL + 1]
    mask_stats(logits, (30, 25), 0.0, 1.0).require_finite()
    logits[PIXEL, 15, 23] = value
    found = mask_stats(logits, (30, 25), 0.0, 1.0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        found.require_finite()


def test_other_layouts_are_refused() -> None:
    logits = few_logits()
    with pytest.raises(ValueError, match="contiguous"):
        kernel.mask_stats(logits.mT, (60, 50), 0.0, 1.0)
    with pytest.raises(ValueError, match="float tensor of 3 dimensions"):
        kernel.mask_stats(logits[0], (60, 50), 0.0, 1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_sizes_equal_the_twins(size: tuple[int, int]) -> None:
    assert_same_stats(logits_of_all_kinds(256, 256).cuda(), size, 0.0, 1.0)


@pytest.mark.gpu
def test_nothing_of_image_size_is_allocated() -> None:
    logits = logits_of_all_kinds(256, 256).cuda()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel.mask_stats(logits, (8192, 8192), 0.0, 1.0)
    assert torch.cuda.max_memory_allocated() - before < 1 << 20
