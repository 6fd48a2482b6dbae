"""Run-length encoding."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from torch import Tensor


class UncompressedRle(TypedDict):
    """COCO's uncompressed RLE: `size` is [height, width]; `counts` alternate background and mask, column by column,
    background first (0 where the first pixel belongs to the mask)."""

    size: list[int]
    counts: list[int]


def encode_rle(masks: Tensor) -> list[UncompressedRle]:
    """Encodes bool masks [n, H, W]. Source: `mask_to_rle_pytorch` of sam2.utils.amg, whose output it equals."""
    _, height, width = masks.shape
    columns = masks.transpose(1, 2).flatten(1)  # [n, W * H]
    changed = columns[:, 1:] != columns[:, :-1]
    mask, position = changed.nonzero().cpu().numpy().T
    starts = columns[:, 0].cpu().numpy()
    bounds = np.searchsorted(mask, np.arange(len(masks) + 1))
    rles: list[UncompressedRle] = []
    for i, first in enumerate(starts):
        edges = np.concatenate(([0], position[bounds[i] : bounds[i + 1]] + 1, [height * width]))
        runs = np.diff(edges).tolist()
        rles.append({"size": [height, width], "counts": [0, *runs] if first else runs})
    return rles
