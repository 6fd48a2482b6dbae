"""Runs, boxes, crops and label maps of masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answer_masks import HARD, discs, drawn, record_of, records_of
from pycocotools import mask as coco_mask
from sam2.utils.amg import batched_mask_to_box, mask_to_rle_pytorch

from sam2_amg.answers.options import AnswerError
from sam2_amg.answers.runs import (
    as_text,
    box_of,
    compressed,
    crop_of,
    label_map,
    require_labels,
    runs_by_label,
    runs_of,
    uncompressed,
)

EMPTY = np.zeros((3, 4), bool)


@pytest.mark.parametrize("mask", [*HARD.values(), EMPTY], ids=[*HARD, "empty"])
def test_runs_box_and_crop_are_those_of_the_pixels(mask: np.ndarray) -> None:
    height, width = mask.shape
    record = record_of(mask)
    runs = runs_of(record["segmentation"])
    again = np.zeros(height * width, bool)
    for start, end in zip(*runs, strict=True):
        assert end > start
        again[start:end] = True
    assert np.array_equal(again.reshape(width, height).T, mask)
    assert uncompressed(runs, mask.shape) == record["segmentation"]
    box, crop = crop_of(runs, height)
    assert box == box_of(runs, height)
    assert np.array_equal(mask[box.y0 : box.y1, box.x0 : box.x1], crop.T)
    if mask.any():
        rows, columns = mask.nonzero()
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box.sam2 == record["bbox"]
    rles = compressed([record], mask.shape)
    assert np.array_equal(coco_mask.decode(rles)[:, :, 0], mask)
    texts = [{**record, "segmentation": as_text(rle)} for rle in rles]
    assert compressed(texts, mask.shape) == rles


def test_counts_may_be_an_array() -> None:
    rle = record_of(HARD["holes in holes"])["segmentation"]
    array = {"size": rle["size"], "counts": np.array(rle["counts"], np.int32)}
    assert all(np.array_equal(a, b) for a, b in zip(runs_of(rle), runs_of(array), strict=True))


def test_the_smaller_mask_is_on_top_and_of_equal_ones_the_later() -> None:
    small, large, other = drawn("##..", "##.."), drawn("####", "####"), drawn(".##.", ".##.")
    labels = label_map(records_of([small, large, other]), (2, 4)).T
    assert labels.tolist() == [[1, 3, 3, 2], [1, 3, 3, 2]]


@pytest.mark.parametrize("mask", HARD.values(), ids=list(HARD))
def test_records_of_the_tests_are_sam2s(mask: np.ndarray) -> None:
    tensor = torch.from_numpy(mask)[None]
    assert record_of(mask)["segmentation"] == mask_to_rle_pytorch(tensor)[0]
    x0, y0, x1, y1 = batched_mask_to_box(tensor)[0].tolist()
    assert record_of(mask)["bbox"] == [x0, y0, x1 - x0, y1 - y0]


@pytest.mark.parametrize("split", [False, True])
def test_runs_by_label(split: bool) -> None:
    masks = discs(12, (31, 40))
    labels = label_map(records_of(masks), (31, 40))
    found = runs_by_label(labels, 12, split)
    assert len(found) == 12
    for label, runs in enumerate(found, start=1):
        again = np.zeros(31 * 40, bool)
        for start, end in zip(*runs, strict=True):
            assert not split or start // 31 == (end - 1) // 31
            again[start:end] = True
        assert np.array_equal(again, (labels == label).ravel())
        assert split or (runs.starts[1:] > runs.ends[:-1]).all()


def test_a_label_map_holds_65535_masks() -> None:
    one = record_of(drawn("#."))
    require_labels([one] * 65535)
    with pytest.raises(AnswerError, match=r"65536 masks are more than the 65535 .*max_masks"):
        require_labels([one] * 65536)
    assert label_map([one] * 65536, (1, 2)).tolist() == [[65536], [0]]
