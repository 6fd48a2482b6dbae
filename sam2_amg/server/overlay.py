"""The overlay: masks drawn over the photograph."""

from __future__ import annotations

import colorsys
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sam2.utils.amg import rle_to_mask

from sam2_amg.pipeline.base import MaskRecord

_OPACITY = 0.55  # of a mask over the photograph
_GOLDEN_RATIO = 0.618033988749895
_STRIP = 256  # rows blended at a time
_PNG_COMPRESSION = 3  # takes a third of the time of Pillow's default level; files are a few percent larger


def colour(index: int) -> tuple[int, int, int]:
    """The RGB colour of the mask with this area rank: deterministic, and distinct from adjacent ranks."""
    hue = (index * _GOLDEN_RATIO) % 1.0
    saturation = (0.95, 0.7, 0.85)[index % 3]
    value = (1.0, 0.9, 0.75)[(index // 3) % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def overlay(image: NDArray[np.uint8], records: list[MaskRecord]) -> NDArray[np.uint8]:
    """Draws masks over their image, uint8 RGB [H, W, 3], largest first, so that small ones are on top."""
    labels = np.zeros(image.shape[:2], np.uint16)  # the topmost mask, from 1; 0 for none
    outlines = np.zeros(image.shape[:2], bool)
    for label, record in enumerate(sorted(records, key=lambda record: -record["area"]), start=1):
        mask = rle_to_mask(dict(record["segmentation"]))
        labels[mask] = label
        outlines[mask] = False
        outlines |= _outline(mask)
    colours = np.array([(0, 0, 0), *(colour(i) for i in range(len(records)))], np.float32)
    drawn = image.copy()
    for top in range(0, len(image), _STRIP):  # in strips, because blending takes ten times the memory of its rows
        rows = slice(top, top + _STRIP)
        masked = labels[rows] > 0
        blended = image[rows][masked] * np.float32(1 - _OPACITY) + colours[labels[rows][masked]] * np.float32(_OPACITY)
        drawn[rows][masked] = blended.round()
    drawn[outlines] = (255, 255, 255)
    return drawn


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask with a 4-neighbour outside it. The image's border does not count as outside."""
    outline = np.zeros_like(mask)
    outline[1:] |= mask[1:] & ~mask[:-1]
    outline[:-1] |= mask[:-1] & ~mask[1:]
    outline[:, 1:] |= mask[:, 1:] & ~mask[:, :-1]
    outline[:, :-1] |= mask[:, :-1] & ~mask[:, 1:]
    return outline


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """uint8 RGB [H, W, 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_COMPRESSION)
    return buffer.getvalue()
