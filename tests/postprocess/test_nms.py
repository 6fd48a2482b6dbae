"""Box suppression against its definition."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou
from torchvision.ops.boxes import batched_nms

from sam2_amg.postprocess.nms import suppress


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
