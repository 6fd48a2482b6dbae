"""Run lengths against sam2's own function and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mask_logits import EMPTY, FULL, logits_of_all_kinds
from pycocotools import mask as coco_mask
from sam2.utils.amg import area_from_rle, mask_to_rle_pytorch, rle_to_mask

from sam2_amg.postprocess.mask_stats import upsample
from sam2_amg.postprocess.rle import UncompressedRle, boundaries_to_rles, find_run_boundaries

SIZES = [(1, 1), (1, 7), (9, 1), (17, 900), (333, 512), (128, 128)]


def rles_of(masks: torch.Tensor) -> list[UncompressedRle]:
    rles, areas = boundaries_to_rles(find_run_boundaries(masks), (masks.shape[1], masks.shape[2]))
    assert areas == masks.sum((1, 2)).tolist() == [area_from_rle(rle) for rle in rles]
    return [{"size": rle["size"], "counts": np.asarray(rle["counts"]).tolist()} for rle in rles]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rle_equals_sam2_and_pycocotools(size: tuple[int, int]) -> None:
    masks = upsample(logits_of_all_kinds(), size) > 0
    rles = rles_of(masks)
    assert rles == mask_to_rle_pytorch(masks)
    for mask, rle in zip(masks.numpy(), rles, strict=True):
        assert np.array_equal(rle_to_mask(dict(rle)), mask)
        assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(dict(rle), *size)), mask)
    assert rles[EMPTY]["counts"] == [size[0] * size[1]]
    assert rles[FULL]["counts"] == [0, size[0] * size[1]]


def test_rle_of_no_masks() -> None:
    assert rles_of(torch.zeros(0, 5, 6, dtype=torch.bool)) == []


def test_rle_of_stripes() -> None:
    masks = torch.zeros(1, 2, 4, dtype=torch.bool)
    masks[0, :, 1::2] = True
    assert rles_of(masks)[0]["counts"] == [2, 2, 2, 2]
