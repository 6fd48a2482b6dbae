"""Samples of any depth -> 8 bits: the whole range, or the part of it that a picture uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Stretch = Literal["minmax", "percentile"]
STRETCHES: tuple[Stretch, ...] = get_args(Stretch)
_CLIPPED = 0.02  # of all samples, at either end
_BAND = 1 << 18  # pixels that are converted at a time, so that they stay in the processor's cache
_FEW = 1 << 16  # the same, of samples that are spread out to 4 bytes meanwhile


def scale_table(depth: int, low: int, high: int) -> NDArray[np.uint8]:
    """uint8 [depth]: what each sample becomes, where `low` and less becomes 0, `high` and more 255, and what lies
    between is scaled to the nearest."""
    values = np.arange(depth, dtype=np.int64).clip(low, high) - low
    span = max(1, high - low)
    return ((values * 255 + span // 2) // span).astype(np.uint8)


def range_of(counts: NDArray[np.int64], stretch: str | None) -> tuple[int, int]:
    """The samples that become 0 and 255. `counts` [depth] says how often each sample is there.

    "minmax": the least and the greatest; "percentile": those at 2 % and 98 % of all samples in order; None: all that
    the depth allows, as also where the two are equal.
    """
    whole = 0, counts.size - 1
    if stretch is None:
        return whole
    order = np.cumsum(counts)
    share = 0.0 if stretch == "minmax" else _CLIPPED
    low, high = (int(np.searchsorted(order, max(1, np.ceil(part * order[-1])))) for part in (share, 1 - share))
    return (low, high) if low < high else whole


def stretch_in_place(pixels: NDArray[np.uint8], stretch: str | None) -> None:
    """Stretches uint8 [H, W, 3]."""
    if stretch is None:
        return
    height, width, _ = pixels.shape
    bands = [pixels[rows] for rows in bands_of(height, width)]
    counts = sum((np.bincount(band.ravel(), minlength=256) for band in bands), np.zeros(256, np.int64))
    table = scale_table(256, *range_of(counts, stretch))
    for band in bands:
        band[...] = table.take(band)


def write_scaled(
    rows_of: Callable[[slice], NDArray[Any]], stored: NDArray[np.uint8], stretch: str | None, depth: int = 1 << 16
) -> None:
    """Writes a picture of samples 0 to `depth` - 1 to `stored`, uint8 [h, w, 3].

    `rows_of` gives some of its rows as uint8 or uint16 [n, w, 1] (grey) or [n, w, 3].
    """
    height, width, _ = stored.shape
    bands = bands_of(height, width, _FEW)
    counts = np.zeros(depth, np.int64)
    if stretch is not None:
        for rows in bands:
            counts += np.bincount(rows_of(rows).ravel(), minlength=depth)
    table = scale_table(depth, *range_of(counts, stretch))
    for rows in bands:
        stored[rows] = table.take(rows_of(rows))


def bands_of(height: int, width: int, pixels: int = _BAND) -> list[slice]:
    """The rows of an image, a band at a time."""
    step = max(1, pixels // width)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]
