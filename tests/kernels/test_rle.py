"""Run boundaries by a Triton kernel against their plain-torch twin: interpreted where there is no GPU, compiled where
there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import DEVICE
from mask_logits import EMPTY, FULL, away_from, logits_of_all_kinds
from torch import Tensor

from sam2_amg.kernels import rle as kernel
from sam2_amg.postprocess import rle as plain
from sam2_amg.postprocess.crops import Crop

DTYPES = [torch.float32, torch.float16]
SIZES = [(1, 1), (1, 7), (9, 1), (16, 24), (17, 70), (90, 5)]  # one of them is two programs wide
LARGE = [(534, 800), (1200, 1800), (8192, 17), (17, 8192), (8192, 8192)]
MEMORY = 1 << 28
SMOOTH = 5 if DEVICE.type == "cuda" else 1  # masks: the interpreter takes as long for each as for the one before


def few_logits(h: int = 16, w: int = 24) -> Tensor:
    return logits_of_all_kinds(h, w, SMOOTH).to(DEVICE)


def assert_same_boundaries(logits: Tensor, crop: Crop, size: tuple[int, int]) -> None:
    """Equal for masks away from the threshold; for the others, in order and within the photograph."""
    expected = plain.run_boundaries(logits, crop, size, 0.0, MEMORY)
    found = kernel.run_boundaries(logits, crop, size, 0.0)
    assert len(found) == len(expected)
    for a, b, clear in zip(expected, found, away_from(logits, crop.size, (0.0,)).tolist(), strict=True):
        assert (np.diff(b, prepend=-1, append=size[0] * size[1]) > 0).all()
        assert np.array_equal(a, b) or not clear


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_run_boundaries_equal_the_twins(size: tuple[int, int], dtype: torch.dtype) -> None:
    assert_same_boundaries(few_logits().to(dtype), Crop(0, 0, size[1], size[0], 0), size)


def test_most_masks_are_away_from_the_threshold() -> None:
    """The comparison above is about something."""
    logits = few_logits()
    assert away_from(logits, (17, 70), (0.0,)).sum() >= len(logits) - 2


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 20), (3, 0, 40, 20), (0, 0, 70, 8), (10, 12, 70, 20), (5, 3, 66, 16), (69, 19, 70, 20)], ids=str
)
def test_run_boundaries_of_crops(box: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As tall as the photograph of 20 x 70 and not, at its edges and inside. Columns are in parts."""
    monkeypatch.setattr(kernel, "_ROWS", 6)
    assert_same_boundaries(few_logits(), Crop(*box, 1), (20, 70))


def test_columns_are_divided_only_where_masks_are_few() -> None:
    """Else the counts of stretches, 12 bytes each, take gigabytes for thousands of masks of tall photographs."""
    assert kernel.rows_of_a_stretch(12, 1200, 1800) == 240
    assert kernel.rows_of_a_stretch(1, 1, 1) == 1
    assert kernel.rows_of_a_stretch(300, 1200, 1800) == 1200
    for masks in (1, 20, 3072):
        rows = kernel.rows_of_a_stretch(masks, 8192, 8192)
        assert masks * 8192 * -(-8192 // rows) <= max(4096 * 64, masks * 8192)


@pytest.mark.parametrize("side", [1, 2])
def test_tiny_logits(side: int) -> None:
    assert_same_boundaries(few_logits(side, side), Crop(0, 0, 13, 9, 0), (9, 13))


def test_run_boundaries_of_full_and_empty_masks() -> None:
    found = kernel.run_boundaries(few_logits()[: FULL + 1], Crop(0, 0, 60, 50, 0), (50, 60), 0.0)
    assert found[EMPTY].tolist() == []
    assert found[FULL].tolist() == [0]


def test_no_masks() -> None:
    nothing = torch.zeros(0, 16, 24, device=DEVICE)
    assert kernel.run_boundaries(nothing, Crop(0, 0, 60, 50, 0), (50, 60), 0.0) == []


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="float tensor of 3 dimensions"):
        kernel.run_boundaries(few_logits().int(), Crop(0, 0, 60, 50, 0), (50, 60), 0.0)
    with pytest.raises(ValueError, match="contiguous"):
        kernel.run_boundaries(few_logits().mT, Crop(0, 0, 60, 50, 0), (50, 60), 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_sizes_equal_the_twins(size: tuple[int, int]) -> None:
    assert_same_boundaries(logits_of_all_kinds(256, 256).cuda(), Crop(0, 0, size[1], size[0], 0), size)
