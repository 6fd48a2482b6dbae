"""Run-length encoding."""

from __future__ import annotations

from collections.abc import Sequence
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
    its length is 0 if the first pixel belongs to the mask. Within the server they may be an array, which takes a tenth
    of the time of a list; `Generator.generate` returns lists, as sam2 does.
    """

    size: list[int]
    counts: list[int] | NDArray[np.int64]


RunBoundaries = NDArray[np.integer]
"""The column-major positions of a mask's pixels that differ from the pixel before. Position 0 is a boundary if it
belongs to the mask."""


def find_run_boundaries(masks: Tensor) -> list[RunBoundaries]:
    """The run boundaries of bool masks [n, H, W].

    Followed by `boundaries_to_rles`, it equals `mask_to_rle_pytorch` of sam2.utils.amg.
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


def boundaries_to_rles(
    boundaries: Sequence[RunBoundaries], size: tuple[int, int]
) -> tuple[list[UncompressedRle], list[int]]:
    """The RLEs of masks of `size` (height, width), whose counts are arrays, and the areas in pixels."""
    if not boundaries:
        return [], []
    height, width = size
    last = np.array([height * width])
    ends = np.concatenate([part for of_mask in boundaries for part in (of_mask, last)])  # int64, of all runs
    lengths = np.array([len(of_mask) + 1 for of_mask in boundaries])  # [n], runs of each mask
    starts = np.cumsum(lengths) - lengths  # [n]
    counts = np.diff(ends, prepend=0)
    counts[starts] = ends[starts]
    in_mask = (np.arange(len(ends)) - np.repeat(starts, lengths)) % 2  # 1 where a run is the mask's
    areas = np.add.reduceat(counts * in_mask, starts)
    of_masks = np.split(counts, starts[1:])
    return [{"size": [height, width], "counts": of_mask} for of_mask in of_masks], areas.tolist()


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
