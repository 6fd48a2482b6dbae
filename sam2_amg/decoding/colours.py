"""Samples of any depth -> grey or RGB of the same depth, to the nearest. `top` is the greatest sample: white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def over_white(colour: NDArray[Any], alpha: NDArray[Any], top: int, premultiplied: bool = False) -> NDArray[Any]:
    """Lays colours [..., bands] of uint8 or uint16 with alpha [..., 1] over white."""
    wide, share = colour.astype(np.uint32), alpha.astype(np.uint32)  # top * top fits in
    if premultiplied:
        return np.minimum(wide + (top - share), top).astype(colour.dtype)
    return ((wide * share + top * (top - share) + top // 2) // top).astype(colour.dtype)


def cmyk_to_rgb(inks: NDArray[Any], top: int) -> NDArray[Any]:
    """[..., 4] -> [..., 3], as Pillow does it: without a colour profile."""
    light = top - inks[..., 3:].astype(np.uint32)
    return (light - (inks[..., :3] * light + top // 2) // top).astype(inks.dtype)
