"""Small holes and islands against sam2's own function, which needs OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sam2.utils import amg

from sam2_amg.postprocess.small_regions import fill_small_holes, remove_small_islands, remove_small_regions


def random_mask(height: int, width: int, seed: int, density: float, block: int) -> NDArray[np.bool_]:
    """Noise of squares of `block` pixels, in a part of the image or in all of it."""
    random = np.random.default_rng(seed)
    coarse = random.random((-(-height // block), -(-width // block))) < density
    mask = coarse.repeat(block, 0).repeat(block, 1)[:height, :width]
    if seed % 2:
        y, x = sorted(random.integers(0, height + 1, 2)), sorted(random.integers(0, width + 1, 2))
        mask[: y[0]], mask[y[1] :], mask[:, : x[0]], mask[:, x[1] :] = False, False, False, False
    return mask


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 1 << 16),
    density=st.sampled_from((0.0, 0.03, 0.2, 0.4, 0.6, 0.9, 1.0)),
    block=st.integers(1, 5),
    min_area=st.sampled_from((0, 1, 2, 3, 5, 9, 20, 60, 400, 2000)),
)
def test_it_equals_sam2(height: int, width: int, seed: int, density: float, block: int, min_area: int) -> None:
    pytest.importorskip("cv2")
    mask = random_mask(height, width, seed, density, block)
    before = mask.copy()
    filled, had_holes = amg.remove_small_regions(mask, min_area, mode="holes")
    expected, had_islands = amg.remove_small_regions(filled, min_area, mode="islands")
    for answer, twin in (
        (fill_small_holes(mask, min_area), (filled, had_holes)),
        (remove_small_islands(filled, min_area), (expected, had_islands)),
        (remove_small_regions(mask, min_area), (expected, had_holes or had_islands)),
    ):
        assert answer[1] == twin[1]
        np.testing.assert_array_equal(answer[0], twin[0])
    np.testing.assert_array_equal(mask, before)


def test_by_hand() -> None:
    """A ring with a hole of one pixel, and an island that touches nothing, not even at a corner."""
    mask = np.zeros((6, 8), bool)
    mask[1:4, 1:4] = True
    mask[2, 2] = False
    mask[5, 5:8] = True
    expected = mask.copy()
    expected[2, 2] = True
    assert remove_small_regions(mask, 1)[1] is False
    filled, changed = remove_small_regions(mask, 2)
    assert changed
    np.testing.assert_array_equal(filled, expected)
    expected[5] = False
    np.testing.assert_array_equal(remove_small_regions(mask, 4)[0], expected)
    expected[2, 2] = False
    np.testing.assert_array_equal(remove_small_islands(mask, 100)[0], expected)  # the largest stays
