"""Small holes and islands of masks, as `remove_small_regions` of sam2.utils.amg removes them, without OpenCV.

Regions are 8-connected, holes too, as in sam2. A region is small if it has fewer pixels than `min_area`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def remove_small_regions(mask: Mask, min_area: int) -> tuple[Mask, bool]:
    """The mask [H, W] with small holes filled, then without small islands, and whether it had either.

    The mask that is given is not written to.
    """
    mask, filled = fill_small_holes(mask, min_area)
    mask, removed = remove_small_islands(mask, min_area)
    return mask, filled or removed


def fill_small_holes(mask: Mask, min_area: int) -> tuple[Mask, bool]:
    """The mask [H, W] with each small region of its background added, and whether there is one.

    Background at the image's edge is a region like any other.
    """
    window = _window_around(mask)
    regions, sizes = _label(~mask[window])
    outside = _outside(window, mask.shape, regions)
    for region, area in outside:
        sizes[region] += area
    small = sizes < min_area
    small[0] = False  # the mask
    if not small.any():
        return mask, False
    if any(small[region] for region, area in outside if area):
        regions, sizes = _label(~mask)  # what is filled goes beyond the window
        window, small = (slice(0, mask.shape[0]), slice(0, mask.shape[1])), sizes < min_area
        small[0] = False
    mask = mask.copy()
    mask[window] |= small[regions]
    return mask, True


def remove_small_islands(mask: Mask, min_area: int) -> tuple[Mask, bool]:
    """The mask [H, W] without its small regions, and whether there is one. If all are small, the largest stays."""
    window = _window_around(mask)
    regions, sizes = _label(mask[window])
    small = sizes < min_area
    small[0] = False  # the background
    if not small.any():
        return mask, False
    stays = ~small
    stays[0] = False
    if not stays.any():
        stays[_first_largest(regions, sizes, window)] = True
    kept = np.zeros_like(mask)
    kept[window] = stays[regions]
    return kept, True


def box_of(mask: Mask) -> list[int] | None:
    """[x0, y0, x1, y1], inclusive; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])] if len(rows) else None


Window = tuple[slice, slice]  # of rows and of columns


def _window_around(mask: Mask) -> Window:
    """The mask's box with a pixel more on each side within the image; the whole image for an empty mask."""
    height, width = mask.shape
    box = box_of(mask)
    if box is None:
        return slice(0, height), slice(0, width)
    x0, y0, x1, y1 = box
    return slice(max(y0 - 1, 0), min(y1 + 2, height)), slice(max(x0 - 1, 0), min(x1 + 2, width))


def _label(mask: Mask) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The region of each pixel, from 1, and 0 outside the mask; the pixels of each number."""
    regions, count = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    return regions, np.bincount(regions.ravel(), minlength=count + 1)


def _outside(window: Window, size: tuple[int, ...], regions: NDArray[np.integer]) -> list[tuple[int, int]]:
    """The image around a window, as regions that go on there, and how many pixels of them are there.

    `regions` are of the background within the window, and along each side that is not the image's, all is background.
    """
    (y, x), (height, width) = window, size
    rows = y.stop - y.start
    return [
        (int(regions[0, 0]), y.start * width + x.start * rows),  # above, over the whole width, and on the left
        (int(regions[-1, -1]), (height - y.stop) * width + (width - x.stop) * rows),  # below, and on the right
    ]


def _first_largest(regions: NDArray[np.integer], sizes: NDArray[np.integer], window: Window) -> int:
    """The largest region, of equals the one that OpenCV numbers first: it goes through 2 x 2 pixels at a time."""
    largest = sizes == sizes[1:].max()
    largest[0] = False
    rows, columns = largest[regions].nonzero()
    y, x = window
    blocks = (rows + y.start) // 2 * (x.stop + 2) + (columns + x.start) // 2
    first = blocks.argmin()
    return int(regions[rows[first], columns[first]])
