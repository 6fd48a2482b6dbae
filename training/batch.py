"""What a step of training sees."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LEVELS = 3  # region, part, thing


class Pictures(NamedTuple):
    """B pictures with labels: `images` [B, 3, S, S], float from 0 to 1; `levels` int32 [B, 6, S, S], islands, then
    whole regions, whose labels are negative where they are not the truth."""

    images: Tensor
    levels: Tensor


class Batch(NamedTuple):
    """Pictures, and pixels, counted along rows: int64 [B, P] to point at, and [B, K] to compare with each other."""

    images: Tensor
    levels: Tensor
    pixels: Tensor
    compared: Tensor

    def known(self) -> Tensor:
        """Whether what lies under each point is drawn, so that its regions are the truth: bool [B, P]."""
        return self.levels[:, LEVELS].flatten(1).gather(1, self.pixels) >= 0
