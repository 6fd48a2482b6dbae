"""EXIF's orientation: 1 is upright, 2 to 8 are turned or mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

# What brings an image of each orientation upright: rows and columns change places, rows are turned round, columns are
# turned round, in this order.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def orientation_of(image: Image.Image) -> int:
    """1 to 8. Cameras write much that is wrong around it; whatever cannot be read means upright."""
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises whatever a broken block makes it stumble over
        return 1
    return value if value in _TURNS else 1


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width of the upright image, from a file's width and height."""
    width, height = size
    return (width, height) if _TURNS.get(orientation, (False,))[0] else (height, width)


def as_stored(upright: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of the upright pixels [H, W, 3] in the order in which a file stores them."""
    if orientation not in _TURNS:
        return upright
    swap, rows, columns = _TURNS[orientation]
    view = upright[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.swapaxes(view, 0, 1) if swap else view
