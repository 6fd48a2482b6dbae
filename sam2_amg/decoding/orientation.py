"""Orientations, by EXIF or, where it has none, by XMP: 1 is upright, 2 to 8 are turned or mirrored."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from sam2_amg.decoding.walk_tiff import ORIENTATION, XMP, TiffPage

_MOST_XMP = 1 << 20  # bytes that are searched
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
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


def orientation_of(image: Image.Image, header_only: bool = False) -> int:
    """1 to 8, by EXIF, or by XMP where EXIF has none. Cameras write much that is wrong around it; whatever cannot be
    read means upright. In AVIF the irot and imir boxes count alone (ISO/IEC 23000-22): Pillow puts them into EXIF.

    `header_only` says that nothing stands behind the image's pixels.
    """
    if image.format == "AVIF":
        image.info.pop("xmp", None)
    read = Image.Image.getexif if header_only else type(image).getexif  # that of PNG decodes the image first
    try:
        value = int(read(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises whatever a broken block makes it stumble over
        return 1
    return value if value in _TURNS else 1


def tiff_orientation(page: TiffPage) -> int:
    """1 to 8, by a TIFF's field or else by its XMP, as Pillow has it for other formats."""
    found = _XMP.search(page.fields[XMP].raw[:_MOST_XMP]) if XMP in page.fields else None
    value = page.value(ORIENTATION, int(found[1]) if found else 1)
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
