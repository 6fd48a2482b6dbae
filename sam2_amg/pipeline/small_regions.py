"""Records -> records without small holes and islands: `postprocess_small_regions` of sam2's generator."""

from __future__ import annotations

import numpy as np
import torch
from sam2.utils.amg import rle_to_mask

from sam2_amg.config import GeneratorConfig
from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.postprocess.nms import suppress
from sam2_amg.postprocess.rle import boundaries_to_rles, find_run_boundaries
from sam2_amg.postprocess.small_regions import Mask, box_of, remove_small_regions
from sam2_amg.process.wanted import while_wanted


def without_small_regions(records: list[MaskRecord], config: GeneratorConfig) -> list[MaskRecord]:
    """The masks without holes and islands of fewer than `min_mask_region_area` pixels. Takes the memory of one mask.

    Changed masks have a new area and box, and come after all others. Of masks whose boxes overlap by more than the
    larger of `box_nms_thresh` and `crop_nms_thresh`, unchanged ones are kept rather than changed ones.
    """
    if not records or config.min_mask_region_area == 0:
        return records
    cleaned, boxes, scores = [], [], []
    for record in while_wanted(records):
        mask, changed = remove_small_regions(rle_to_mask(record["segmentation"]), config.min_mask_region_area)
        boxes.append(box_of(mask) or [0, 0, 0, 0])
        scores.append(0.0 if changed else 1.0)
        cleaned.append(_with_mask(record, mask, boxes[-1]) if changed else record)
    threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
    return [cleaned[row] for row in suppress(torch.tensor(boxes), torch.tensor(scores), threshold).tolist()]


def _with_mask(record: MaskRecord, mask: Mask, box: list[int]) -> MaskRecord:
    boundaries = find_run_boundaries(torch.from_numpy(np.ascontiguousarray(mask))[None])
    (rle,), (area,) = boundaries_to_rles(boundaries, (mask.shape[0], mask.shape[1]))
    x0, y0, x1, y1 = map(float, box)
    return {**record, "segmentation": rle, "area": area, "bbox": [x0, y0, x1 - x0, y1 - y0]}
