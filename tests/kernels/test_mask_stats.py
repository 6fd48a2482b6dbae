"""Triton kernels against their plain-torch twins: interpreted where there is no GPU, compiled where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DEVICE, ROOT
from mask_logits import EMPTY, FULL, logits_of_all_kinds
from torch import Tensor

from sam2_amg.kernels import mask_stats as kernel_stats
from sam2_amg.kernels import rle as kernel_rle
from sam2_amg.postprocess import mask_stats as plain_stats
from sam2_amg.postprocess import rle as plain_rle
from sam2_amg.postprocess.crops import Crop

DTYPES = [torch.float32, torch.float16]
SIZES = [(1, 1), (1, 7), (9, 1), (17, 140), (16, 24), (150, 9), (300, 5)]  # the last is two programs tall
LARGE = [(534, 800), (1200, 1800), (8192, 17), (17, 8192), (8192, 8192)]
MEMORY = 1 << 28
# Values are at most 20 here; four roundings of float32 move one by less than this.
ROUNDING = 20 * 4 * 2**-24


def away_from(logits: Tensor, sizes: tuple[int, int], thresholds: tuple[float, ...]) -> Tensor:
    """The masks none of whose upsampled values is within rounding of a threshold. bool [n]"""
    values = plain_stats.upsample(logits, sizes)
    near = torch.stack([(values - threshold).abs() <= ROUNDING for threshold in thresholds]).any(0)
    return ~near.flatten(1).any(1)


def assert_same_stats(logits: Tensor, size: tuple[int, int], threshold: float, offset: float) -> None:
    """Equal for masks away from the thresholds; for the others, no more pixels differ than are near one."""
    expected = plain_stats.mask_stats(logits, size, threshold, offset, MEMORY)
    found = kernel_stats.mask_stats(logits, size, threshold, offset)
    clear = away_from(logits, size, (threshold - offset, threshold, threshold + offset))
    values = plain_stats.upsample(logits, size)
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
    assert_same_stats(logits_of_all_kinds(16, 24).to(DEVICE, dtype), size, 0.0, 1.0)


@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 0.0), (0.5, 2.0), (-1.0, 0.25)])
def test_measurements_at_other_thresholds(threshold: float, offset: float) -> None:
    assert_same_stats(logits_of_all_kinds(16, 24).to(DEVICE), (37, 41), threshold, offset)


def test_measurements_are_exact_away_from_thresholds() -> None:
    """Most masks of this set have no value near a threshold: the comparison above is about something."""
    logits = logits_of_all_kinds(16, 24).to(DEVICE)
    clear = away_from(logits, (31, 60), (-1.0, 0.0, 1.0))
    assert clear.sum() >= len(logits) - 2
    found = kernel_stats.mask_stats(logits, (31, 60), 0.0, 1.0)
    assert found.area[EMPTY] == 0
    assert found.boxes[EMPTY].tolist() == [0, 0, 0, 0]
    assert found.stability[EMPTY].isnan()
    assert found.area[FULL] == 31 * 60
    assert found.boxes[FULL].tolist() == [0, 0, 59, 30]


@pytest.mark.parametrize("side", [1, 2])
def test_tiny_logits(side: int) -> None:
    assert_same_stats(logits_of_all_kinds(side, side).to(DEVICE), (9, 13), 0.0, 1.0)
    assert_same_boundaries(logits_of_all_kinds(side, side).to(DEVICE), Crop(0, 0, 13, 9, 0), (9, 13))


def test_no_masks() -> None:
    nothing = torch.zeros(0, 16, 24, device=DEVICE)
    found = kernel_stats.mask_stats(nothing, (50, 60), 0.0, 1.0)
    assert found.area.shape == found.stability.shape == (0,)
    assert found.boxes.shape == (0, 4)
    assert kernel_rle.run_boundaries(nothing, Crop(0, 0, 60, 50, 0), (50, 60), 0.0) == []


@pytest.mark.parametrize("mask_stats", [kernel_stats.mask_stats, lambda *a: plain_stats.mask_stats(*a, memory=MEMORY)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_is_refused(mask_stats, value: float) -> None:
    logits = logits_of_all_kinds(16, 24).to(DEVICE)
    logits[3, 15, 23] = value
    found = mask_stats(logits, (60, 50), 0.0, 1.0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        found.require_finite()


def test_other_layouts_are_refused() -> None:
    logits = logits_of_all_kinds(16, 24).to(DEVICE)
    with pytest.raises(ValueError, match="contiguous"):
        kernel_stats.mask_stats(logits.mT, (60, 50), 0.0, 1.0)
    with pytest.raises(ValueError, match="float tensor of 3 dimensions"):
        kernel_stats.mask_stats(logits[0], (60, 50), 0.0, 1.0)
    with pytest.raises(ValueError, match="float tensor of 3 dimensions"):
        kernel_rle.run_boundaries(logits.int(), Crop(0, 0, 60, 50, 0), (50, 60), 0.0)


def assert_same_boundaries(logits: Tensor, crop: Crop, size: tuple[int, int]) -> None:
    expected = plain_rle.run_boundaries(logits, crop, size, 0.0, MEMORY)
    found = kernel_rle.run_boundaries(logits, crop, size, 0.0)
    assert len(found) == len(expected)
    for a, b, clear in zip(expected, found, away_from(logits, crop.size, (0.0,)).tolist(), strict=True):
        assert (np.diff(b, prepend=-1, append=size[0] * size[1]) > 0).all()
        assert np.array_equal(a, b) or not clear


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_run_lengths_equal_the_twins(size: tuple[int, int], dtype: torch.dtype) -> None:
    logits = logits_of_all_kinds(16, 24).to(DEVICE, dtype)
    assert_same_boundaries(logits, Crop(0, 0, size[1], size[0], 0), size)


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 50), (3, 0, 40, 50), (0, 0, 70, 20), (10, 30, 70, 50), (5, 7, 66, 41), (69, 49, 70, 50)], ids=str
)
def test_run_lengths_of_crops(box: tuple[int, int, int, int]) -> None:
    """Crops as tall as the photograph and not, at its edges and inside, in a photograph of 50 x 70."""
    assert_same_boundaries(logits_of_all_kinds(16, 24).to(DEVICE), Crop(*box, 1), (50, 70))


def test_run_lengths_of_full_and_empty_masks() -> None:
    found = kernel_rle.run_boundaries(logits_of_all_kinds(16, 24).to(DEVICE), Crop(0, 0, 60, 50, 0), (50, 60), 0.0)
    assert found[EMPTY].tolist() == []
    assert found[FULL].tolist() == [0]


@pytest.mark.gpu
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_sizes_equal_the_twins(size: tuple[int, int]) -> None:
    logits = logits_of_all_kinds(256, 256).cuda()
    assert_same_stats(logits, size, 0.0, 1.0)
    assert_same_boundaries(logits, Crop(0, 0, size[1], size[0], 0), size)


@pytest.mark.gpu
def test_nothing_of_image_size_is_allocated() -> None:
    logits = logits_of_all_kinds(256, 256).cuda()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel_stats.mask_stats(logits, (8192, 8192), 0.0, 1.0)
    assert torch.cuda.max_memory_allocated() - before < 1 << 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="the tests above compile them")
def test_kernels_compile_for_hopper(tmp_path: Path) -> None:
    """The compiler needs no GPU: what the interpreter accepts and it does not is found here."""
    command = [sys.executable, "tests/kernels/compile_kernels.py"]
    environment = {"TRITON_INTERPRET": "0", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
