"""Mask statistics at the photograph's size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.utils.amg import batched_mask_to_box
from torch import Tensor

# Memory per pixel and mask during counting: a float32 logit, and two bool masks of one byte.
BYTES_PER_PIXEL = 6


@dataclass(frozen=True)
class MaskStats:
    """Statistics of n masks: pixels above three thresholds, and boxes.

    `boxes` are [x0, y0, x1, y1] in pixels, inclusive, zeros for an empty mask.
    """

    above_high: Tensor  # int32 [n], pixels above threshold + offset
    area: Tensor  # int32 [n], above the threshold: pixels of the mask
    above_low: Tensor  # int32 [n], above threshold - offset
    boxes: Tensor  # int64 [n, 4]
    not_finite: Tensor  # bool [], whether any logit was NaN or infinite

    def require_finite(self) -> None:
        """Raises ValueError if a logit is NaN or infinite. Waits for the device, which `mask_stats` does not."""
        if self.not_finite:
            raise ValueError("the network's logits contain NaN or infinity; the masks would be wrong")

    @property
    def stability(self) -> Tensor:
        """Float32 [n]: IoU of the masks at the high and the low threshold; NaN if both are empty."""
        return self.above_high / self.above_low


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Low-res logits [n, h, w] -> float32 [n, H, W], bilinear, align_corners=False, as sam2's predictor does."""
    return F.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]


def upsampled_in_batches(logits: Tensor, size: tuple[int, int], memory: int, extra_bytes: int = 0) -> Iterator[Tensor]:
    """Yields upsampled logits [b, H, W] in order, as many at a time as fit in `memory` bytes, at least one.

    `extra_bytes` is the memory that the caller uses per mask in addition.
    """
    at_once = max(1, memory // (size[0] * size[1] * BYTES_PER_PIXEL + extra_bytes))
    for part in logits.split(at_once):
        yield upsample(part, size)


def _count(masks: Tensor) -> Tensor:
    """Pixels in bool masks [n, H, W], int32 [n]. Rows are summed in int16 (W <= 32767), much faster on a CPU."""
    return masks.sum(2, dtype=torch.int16).sum(1, dtype=torch.int32)


def mask_stats(logits: Tensor, size: tuple[int, int], threshold: float, offset: float, memory: int) -> MaskStats:
    """Pixel counts and boxes of masks at `size` (height, width) from low-res logits, float [n, h, w].

    Upsampled logits and masks use up to `memory` bytes at a time, or those of one mask if that is more.
    Source: `calculate_stability_score` and `batched_mask_to_box` of sam2.utils.amg.
    """
    counts = [torch.empty(3, 0, dtype=torch.int32, device=logits.device)]
    boxes = [torch.empty(0, 4, dtype=torch.int64, device=logits.device)]
    for values in upsampled_in_batches(logits, size, memory):  # [b, H, W]
        masks = values > threshold
        counts.append(
            torch.stack([_count(values > threshold + offset), _count(masks), _count(values > threshold - offset)])
        )
        boxes.append(batched_mask_to_box(masks))
    high, area, low = torch.cat(counts, dim=1)
    return MaskStats(high, area, low, torch.cat(boxes), ~logits.isfinite().all())
