"""Run-length encoding."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from sam2.utils.amg import uncrop_masks
from torch import Tensor

from sam2_amg.postprocess.crops import Crop
from sam2_amg.postprocess.mask_stats import upsampled_in_batches


class UncompressedRle(TypedDict):
    """COCO's uncompressed RLE. `size` is [height, width].

    `counts` are the lengths of alternating runs of background and mask, column by column. The first run is background;
    its length is 0 if the first pixel belongs to the mask.
    """

    size: list[int]
    counts: list[int]


RunBoundaries = NDArray[np.integer]
"""The column-major positions of a mask's pixels that differ from the pixel before. Position 0 is a boundary if it
belongs to the mask."""


def find_run_boundaries(masks: Tensor) -> list[RunBoundaries]:
    """The run boundaries of bool masks [n, H, W].

    Followed by `boundaries_to_rle`, it equals `mask_to_rle_pytorch` of sam2.utils.amg.
    """
    columns = masks.transpose(1, 2).flatten(1)  # [n, W * H]
    changed = columns[:, 1:] != columns[:, :-1]
    mask, position = changed.nonzero().cpu().numpy().T
    starts = columns[:, 0].cpu().numpy()
    bounds = np.searchsorted(mask, np.arange(len(masks) + 1))
    return [
        np.concatenate((np.zeros(int(first), np.int64), position[bounds[i] : bounds[i + 1]] + 1))
        for i, first in enumerate(starts)
    ]


def boundaries_to_rle(boundaries: RunBoundaries, size: tuple[int, int]) -> UncompressedRle:
    """The RLE of a mask of `size` (height, width)."""
    height, width = size
    counts = np.diff(boundaries, prepend=0, append=height * width).astype(int).tolist()
    return {"size": [height, width], "counts": counts}


def run_boundaries(
    logits: Tensor, crop: Crop, size: tuple[int, int], threshold: float, memory: int
) -> list[RunBoundaries]:
    """Run boundaries of masks of a crop, at the photograph's `size` (height, width), in about `memory` bytes.

    `logits` are low-res, float [n, h, w]. A mask is the pixels above `threshold` after upsampling to the crop's size.
    """
    extra_bytes = 3 * size[0] * size[1]  # uncropped mask, transposed copy and changes: one byte per pixel each
    boundaries: list[RunBoundaries] = []
    for masks in upsampled_in_batches(logits, crop.size, memory, extra_bytes):
        boundaries += find_run_boundaries(uncrop_masks(masks > threshold, crop.box, *size))
    return boundaries
