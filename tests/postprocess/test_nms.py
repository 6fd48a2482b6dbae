"""Box suppression against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou
from torchvision.ops.boxes import batched_nms

from sam2_amg.postprocess.nms import _suppress_among, restore_thin, suppress, widen_thin


@pytest.mark.parametrize("count", [0, 1, 50, 4500])  # torchvision takes another path beyond 1,000 boxes
def test_suppress_keeps_the_best_and_nothing_that_overlaps_it(count: int) -> None:
    random = torch.Generator().manual_seed(count)
    corners = torch.randint(0, 200, (count, 2), generator=random)
    boxes = torch.cat([corners, corners + torch.randint(1, 60, (count, 2), generator=random)], dim=1)
    scores = torch.rand(count, generator=random)
    kept = suppress(boxes, scores, 0.5).tolist()
    overlaps = box_iou(boxes.float(), boxes.float()) > 0.5
    dropped = torch.zeros(count, dtype=torch.bool)
    expected: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if not dropped[row]:
            expected.append(row)
            dropped |= overlaps[row]
    assert kept == expected


@pytest.mark.parametrize("count", [300, 1000, 1001])  # up to and beyond where torchvision takes another path
def test_suppress_orders_ties_as_sam2_does(count: int) -> None:
    random = torch.Generator().manual_seed(count)
    corners = torch.randint(0, 300, (count, 2), generator=random)
    boxes = torch.cat([corners, corners + torch.randint(1, 60, (count, 2), generator=random)], dim=1)
    scores = torch.randint(0, 5, (count,), generator=random).float()
    one_class = torch.zeros(count, dtype=torch.int64)
    assert torch.equal(suppress(boxes, scores, 0.7), batched_nms(boxes.float(), scores, one_class, 0.7))


def random_boxes(seed: int, count: int, least: int, most: int = 12) -> tuple[Tensor, Tensor]:
    """Boxes of small sides, so that many overlap, and scores, some of which are equal."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 20, (count, 2), generator=random)
    sides = torch.randint(least, most, (count, 2), generator=random)
    return torch.cat([corners, corners + sides], dim=1), torch.randint(0, 40, (count,), generator=random) / 40


def torchvisions_rows(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """What sam2 calls."""
    return batched_nms(boxes.float(), scores, torch.zeros(len(boxes), dtype=torch.int64), threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_boxes_with_an_area_suppress_each_other_as_in_sam2(threshold: float) -> None:
    for seed in range(40):
        boxes, scores = random_boxes(seed, 1 + 8 * seed, least=1)
        assert torch.equal(suppress(boxes, scores, threshold), torchvisions_rows(boxes, scores, threshold))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_boxes_without_area_leave_the_others_alone(threshold: float) -> None:
    """Both kinds in one set: each kind keeps what it keeps without the other, in the order of the scores."""
    thin_ones = 0
    for seed in range(60):
        boxes, scores = random_boxes(seed, 8 * seed, least=0, most=6)
        thin = (boxes[:, 2:] == boxes[:, :2]).any(1)
        thin_ones += int(thin.sum())
        kept = suppress(boxes, scores, threshold)
        rows = (~thin).nonzero()[:, 0]
        assert torch.equal(kept[~thin[kept]], rows[torchvisions_rows(boxes[rows], scores[rows], threshold)])
        rows = thin.nonzero()[:, 0]
        assert torch.equal(kept[thin[kept]], rows[suppress(boxes[rows], scores[rows], threshold)])
    assert thin_ones > 1000


def test_boxes_without_area_suppress_their_like() -> None:
    point, row, longer, column = [3, 4, 3, 4], [3, 4, 9, 4], [3, 4, 10, 4], [3, 4, 3, 10]
    boxes = torch.tensor([point, point, row, longer, column, column, row])
    scores = torch.tensor([0.7, 0.9, 0.6, 0.8, 0.4, 0.5, 0.3])
    assert suppress(boxes, scores, 0.7).tolist() == [1, 3, 5]
    assert torchvisions_rows(boxes, scores, 0.7).tolist() == [1, 3, 0, 2, 5, 4, 6]  # what is departed from


def test_widened_boxes_are_restored() -> None:
    boxes = random_boxes(0, 500, least=0, most=3)[0].float()
    widened = widen_thin(boxes)
    assert (widened[:, 2:] - widened[:, :2] >= 1).all()
    assert torch.equal(restore_thin(widened), boxes)
    assert torch.equal(restore_thin(widened + 7), boxes + 7)
    assert torch.equal(restore_thin(widen_thin(boxes[:0])), boxes[:0])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 0.99, 1.0])
def test_only_some_boxes_count(threshold: float) -> None:
    """Chosen first, as on a CPU, and without that, as on a GPU."""
    for seed in range(40):
        boxes, scores = random_boxes(seed, 8 * seed, least=0)
        among = torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed)) < seed / 39
        rows = among.nonzero()[:, 0]
        expected = rows[torchvisions_rows(widen_thin(boxes[rows]), scores[rows], threshold)]
        assert torch.equal(suppress(boxes, scores, threshold, among), expected)
        if threshold < 1:
            assert torch.equal(_suppress_among(widen_thin(boxes), scores, threshold, among), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.9989, 0.99999999, 1.0])  # a GPU rounds the last but one to 1
@pytest.mark.parametrize("count", [0, 1, 700, 25_001])  # torchvision takes another path beyond 25,000 boxes
def test_only_some_boxes_count_on_a_gpu(count: int, threshold: float) -> None:
    boxes, scores = (x.cuda() for x in random_boxes(count, count, least=0))
    for least in (0.3, 0.99):  # of 40 scores, many are equal; over the second, none are left
        among = scores > least
        rows = among.nonzero()[:, 0]
        expected = rows[suppress(boxes[rows], scores[rows], threshold)]
        assert torch.equal(suppress(boxes, scores, threshold, among), expected)
