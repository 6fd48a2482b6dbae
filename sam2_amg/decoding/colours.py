"""Samples of any depth -> grey or RGB of the same depth, to the nearest. `top` is the greatest sample: white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def over_white(colour: NDArray[Any], alpha: NDArray[Any], top: int, premultiplied: bool = False) -> NDArray[Any]:
    """Lays colours [..., bands] of uint8 or uint16 with alpha [..., 1] over white."""
    if alpha.min(initial=top) == top:
        return colour
    if not alpha.any() and not premultiplied:
        return np.full_like(colour, top)
    share = alpha.astype(np.uint32)
    if premultiplied:
        return np.minimum(colour + (top - share), top).astype(colour.dtype)
    return (top - _divided((top - colour.astype(np.uint32)) * share, top)).astype(colour.dtype)


def cmyk_to_rgb(inks: NDArray[Any], top: int) -> NDArray[Any]:
    """[..., 4] -> [..., 3], as Pillow does it: without a colour profile."""
    light = top - inks[..., 3:].astype(np.uint32)
    return (light - _divided(inks[..., :3] * light, top)).astype(inks.dtype)


def _divided(products: NDArray[np.uint32], top: int) -> NDArray[np.uint32]:
    """Products of two samples divided by `top`, one less than a power of two, to the nearest; in place."""
    bits = top.bit_length()
    products += 1 << (bits - 1)  # top * top and this fit into 32 bits
    products += products >> bits
    products >>= bits
    return products
