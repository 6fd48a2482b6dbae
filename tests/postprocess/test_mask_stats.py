"""Mask statistics against sam2's own functions."""

from __future__ import annotations

import pytest
import torch
from mask_logits import EMPTY, FULL, logits_of_all_kinds
from sam2.utils.amg import batched_mask_to_box, calculate_stability_score

from sam2_amg.postprocess.mask_stats import BYTES_PER_PIXEL, mask_stats, upsample, upsampled_in_batches

SIZES = [(1, 1), (1, 7), (9, 1), (17, 900), (333, 512), (128, 128)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mask_stats_equal_sam2s(size: tuple[int, int]) -> None:
    logits = logits_of_all_kinds()
    stats = mask_stats(logits, size, threshold=0.0, offset=1.0, memory=1)  # a mask at a time
    masks = upsample(logits, size)
    torch.testing.assert_close(
        stats.stability, calculate_stability_score(masks, 0.0, 1.0), rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(stats.boxes, batched_mask_to_box(masks > 0))
    assert stats.stability[EMPTY].isnan()
    assert stats.stability[FULL] == 1
    assert stats.boxes[EMPTY].tolist() == [0, 0, 0, 0]
    assert stats.boxes[FULL].tolist() == [0, 0, size[1] - 1, size[0] - 1]


@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 0.0), (0.5, 2.0), (-1.0, 0.25)])
def test_measure_at_other_thresholds(threshold: float, offset: float) -> None:
    logits = logits_of_all_kinds()
    stats = mask_stats(logits, (97, 61), threshold, offset, memory=1 << 20)
    masks = upsample(logits, (97, 61))
    expected = calculate_stability_score(masks, threshold, offset)
    torch.testing.assert_close(stats.stability, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(stats.boxes, batched_mask_to_box(masks > threshold))


def test_measure_of_no_masks() -> None:
    stats = mask_stats(torch.zeros(0, 32, 24), (50, 60), 0.0, 1.0, memory=1 << 20)
    assert stats.stability.shape == (0,)
    assert stats.boxes.shape == (0, 4)


@pytest.mark.parametrize("at_once", [1, 2, 4, 100])
def test_upsampling_stays_within_memory(at_once: int) -> None:
    logits, size = logits_of_all_kinds(), (40, 50)
    batches = list(upsampled_in_batches(logits, size, memory=at_once * 40 * 50 * BYTES_PER_PIXEL))
    assert max(len(batch) for batch in batches) == min(at_once, len(logits))
    assert torch.equal(torch.cat(batches), upsample(logits, size))
    besides = list(upsampled_in_batches(logits, size, memory=at_once * 40 * 50 * BYTES_PER_PIXEL, extra_bytes=10**9))
    assert {len(batch) for batch in besides} == {1}
