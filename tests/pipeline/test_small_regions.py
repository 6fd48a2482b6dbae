"""Records without small regions, against sam2's own function, which needs OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from answer_masks import unwanted_after
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.utils.amg import MaskData, area_from_rle, mask_to_rle_pytorch

from sam2_amg.config import GeneratorConfig
from sam2_amg.pipeline.base import MaskRecord, with_lists
from sam2_amg.pipeline.small_regions import without_small_regions

HEIGHT, WIDTH = 40, 60


def blobs(seed: int) -> torch.Tensor:
    """Bool [n, H, W]: discs with small holes and islands, some of them nearly the same. The last mask is empty."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = []
    for _ in range(8):
        centre, radius = random.uniform((5, 5), (HEIGHT - 5, WIDTH - 5)), random.uniform(5, 15)
        for grown in (0.0, 0.7):
            mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (radius + grown) ** 2
            if random.random() < 0.6:
                mask ^= random.random(mask.shape) < 0.01
            masks.append(mask)
    return torch.from_numpy(np.stack([*masks, np.zeros_like(mask)]))


def records_of(masks: torch.Tensor) -> list[MaskRecord]:
    found: list[MaskRecord] = []
    for i, rle in enumerate(mask_to_rle_pytorch(masks)):
        ys, xs = masks[i].nonzero(as_tuple=True)
        box = [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0]
        x0, y0, x1, y1 = map(float, box)
        found.append(
            {
                "segmentation": rle,  # type: ignore[typeddict-item]
                "area": area_from_rle(rle),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "predicted_iou": 0.9 - i / 100,
                "point_coords": [[float(i), 1.0]],
                "stability_score": 0.95,
                "crop_box": [0.0, 0.0, float(WIDTH), float(HEIGHT)],
            }
        )
    return found


@pytest.mark.parametrize("thresholds", [(0.7, 0.3), (0.5, 0.9)], ids=str)
@pytest.mark.parametrize("min_area", [2, 30, 150])
def test_it_equals_sam2(min_area: int, thresholds: tuple[float, float]) -> None:
    pytest.importorskip("cv2")
    dropped = 0
    for seed in range(10):
        records = records_of(blobs(seed))
        boxes = np.array([record["bbox"] for record in records])
        boxes[:, 2:] += boxes[:, :2]
        data = MaskData(
            rles=[dict(record["segmentation"]) for record in records],
            boxes=boxes,
            points=np.array([record["point_coords"][0] for record in records]),
        )
        expected = SAM2AutomaticMaskGenerator.postprocess_small_regions(data, min_area, max(thresholds))
        box_nms, crop_nms = thresholds
        config = GeneratorConfig(min_mask_region_area=min_area, box_nms_thresh=box_nms, crop_nms_thresh=crop_nms)
        found = with_lists(without_small_regions(records, config))
        assert [record["segmentation"] for record in found] == expected["rles"]
        assert [record["area"] for record in found] == [area_from_rle(rle) for rle in expected["rles"]]
        assert [record["point_coords"][0] for record in found] == expected["points"].tolist()
        boxes = expected["boxes"].copy()
        boxes[:, 2:] -= boxes[:, :2]
        assert [record["bbox"] for record in found] == boxes.tolist()
        dropped += len(records) - len(found)
    assert dropped >= 1


def test_no_area_changes_nothing_and_no_records_stay_none() -> None:
    records = records_of(blobs(1))
    assert without_small_regions(records, GeneratorConfig()) is records
    assert without_small_regions([], GeneratorConfig(min_mask_region_area=5)) == []


def test_what_nobody_waits_for_ends_between_two_masks() -> None:
    with unwanted_after(3):
        without_small_regions(records_of(blobs(0)), GeneratorConfig(min_mask_region_area=10))
