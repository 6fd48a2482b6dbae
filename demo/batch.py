"""What a step of training sees."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Pictures(NamedTuple):
    """B pictures with labels: `images` [B, 3, S, S], float from 0 to 1; `levels` int32 [B, 6, S, S], islands, then
    whole regions; `drawn`, float [B], is 1 where labels are the truth."""

    images: Tensor
    levels: Tensor
    drawn: Tensor


class Batch(NamedTuple):
    """Pictures, and pixels, counted along rows: int64 [B, P] to point at, and [B, K] to compare with each other."""

    images: Tensor
    levels: Tensor
    drawn: Tensor
    pixels: Tensor
    compared: Tensor
