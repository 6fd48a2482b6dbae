"""Filters of records, against the same in pixels."""

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from answer_masks import HARD, Mask, discs, drawn, record_of, records_of, unwanted_after
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_amg.answers import filters
from sam2_amg.answers.filters import Filters, filtered, make_disjoint, suppress_masks
from sam2_amg.answers.options import AnswerError
from sam2_amg.pipeline.base import MaskRecord

SIZE = (24, 33)
MASKS = [mask for mask in discs(60, SIZE) if mask.any()]
RECORDS = records_of(MASKS)


def iou(a: Mask, b: Mask) -> float:
    return (a & b).sum() / (a | b).sum()


def suppressed_in_pixels(masks: list[Mask], scores: list[float], threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(masks)), key=lambda i: -scores[i]):
        if all(iou(masks[i], masks[j]) <= threshold for j in kept):
            kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize("block", [256, 7])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.98, 1.0])
def test_mask_nms_is_that_of_the_pixels(threshold: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_BLOCK", block)
    scores = np.random.default_rng(1).integers(80, 100, len(MASKS)) / 100  # with ties
    records = [record_of(mask, float(score)) for mask, score in zip(MASKS, scores, strict=True)]
    expected = suppressed_in_pixels(MASKS, scores.tolist(), threshold)
    assert suppress_masks(records, SIZE, threshold) == [records[i] for i in expected]
    if threshold == 0.5:
        assert 5 < len(expected) < len(MASKS)


def test_mask_nms_lets_other_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycocotools lets none run while it compares masks."""
    calls: list[int] = []

    def counted(a: list[Any], b: list[Any], crowd: list[int]) -> NDArray[np.float64]:
        calls.append(len(a) * len(b) * (len(a[0]["counts"]) + len(b[0]["counts"])))
        return coco_mask.iou(a, b, crowd)

    choices = np.random.default_rng(0)
    records = records_of([choices.random((100, 100)) < 0.5 for _ in range(40)])
    expected = suppress_masks(records, (100, 100), 0.4)
    monkeypatch.setattr(filters, "coco_mask", SimpleNamespace(iou=counted))
    monkeypatch.setattr(filters, "_WORK", 500_000)
    assert suppress_masks(records, (100, 100), 0.4) == expected
    assert len(calls) > 10
    assert max(calls) <= 500_000


def test_what_nobody_waits_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_WORK", 1)  # a pair a call
    records = records_of(discs(5, (30, 40)))
    for chosen in (Filters(mask_nms_thresh=0.5), Filters(disjoint=True)):
        with unwanted_after(4):
            filtered(records, (30, 40), chosen)


def test_mask_nms_keeps_the_order_of_the_records() -> None:
    """With crops, records are not sorted by predicted IoU."""
    a, b, c = drawn("####....", "####...."), drawn("......##", "......##"), drawn("###.....", "####....")
    records = [record_of(a, 0.8), record_of(b, 0.85), record_of(c, 0.9)]
    assert suppress_masks(records, (2, 8), 0.7) == [records[1], records[2]]


def disjoint_in_pixels(masks: list[Mask]) -> list[Mask]:
    left = [mask.copy() for mask in masks]
    order = sorted(range(len(masks)), key=lambda i: -masks[i].sum())
    for position, i in enumerate(order):
        for j in order[position + 1 :]:
            left[i] &= ~masks[j]
    return left


def assert_disjoint(masks: list[Mask], found: list[MaskRecord]) -> None:
    expected = []
    for record, mask in zip(records_of(masks), disjoint_in_pixels(masks), strict=True):
        if mask.any():
            new = record_of(mask)
            changes = {key: new[key] for key in ("segmentation", "area", "bbox")}
            expected.append({**record, **changes})
    assert found == expected


def test_disjoint_masks_are_those_of_the_pixels() -> None:
    before = deepcopy(RECORDS)
    assert_disjoint(MASKS, make_disjoint(RECORDS, SIZE))
    assert before == RECORDS


@pytest.mark.parametrize("mask", HARD.values(), ids=list(HARD))
def test_a_single_mask_is_disjoint(mask: Mask) -> None:
    assert make_disjoint([record_of(mask)], mask.shape) == [record_of(mask)]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_disjoint_of_any_masks(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    bits = st.lists(st.booleans(), min_size=height * width, max_size=height * width).filter(any)
    drawn_bits = data.draw(st.lists(bits, max_size=4))
    masks = [np.array(values).reshape(height, width) for values in drawn_bits]
    assert_disjoint(masks, make_disjoint(records_of(masks), (height, width)))


def test_filters_apply_in_their_order() -> None:
    assert filtered(RECORDS, SIZE, Filters()) == RECORDS
    small = [record for record in RECORDS if record["area"] <= 40]
    assert 0 < len(small) < len(RECORDS)
    assert filtered(RECORDS, SIZE, Filters(max_mask_area=40)) == small
    large = [record for record in RECORDS if record["area"] >= 40]
    assert 0 < len(large) < len(RECORDS)
    assert filtered(RECORDS, SIZE, Filters(min_mask_area=40)) == large
    assert filtered(RECORDS, SIZE, Filters(max_masks=3)) == RECORDS[:3]
    small = [record for record in small if record["area"] >= 9]
    expected = make_disjoint(suppress_masks(small, SIZE, 0.4)[:5], SIZE)
    assert filtered(RECORDS, SIZE, Filters(9, 40, 0.4, 5, True)) == expected
    assert filtered([], SIZE, Filters(9, 40, 0.4, 5, True)) == []


def test_what_is_not_allowed_is_named() -> None:
    for message, values in {
        "min_mask_area must be at least 1, not 0": {"min_mask_area": 0},
        "max_mask_area must be at least 1, not 0": {"max_mask_area": 0},
        "max_masks must be at least 1, not -1": {"max_masks": -1},
        "mask_nms_thresh must be from 0 to 1, not 1.5": {"mask_nms_thresh": 1.5},
    }.items():
        with pytest.raises(AnswerError, match=message):
            Filters(**values)
