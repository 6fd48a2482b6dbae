"""`png`: the overlay, masks drawn over the photograph."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2_amg.answers.lettering import write_ids
from sam2_amg.answers.options import Options, Segmented, Style
from sam2_amg.answers.palette import PALETTE, assign_colours, touching
from sam2_amg.answers.png import encode_png
from sam2_amg.answers.runs import Box, box_of, crop_of, painting_order, require_labels, runs_of
from sam2_amg.process.wanted import while_wanted

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_OPACITY = 0.55  # of a mask over the photograph
_WHITE = (255, 255, 255)
_GOLDEN_RATIO = 0.618033988749895
_STRIP = 256  # rows blended at a time
_PIXELS_OF_LINE = 600  # a line gets a pixel wider for each of these of the image's shorter side
_DEFAULTS = Options()


def colour(index: int) -> tuple[int, int, int]:
    """The RGB colour of the mask with this area rank in `POST /upload`: distinct from adjacent ranks."""
    hue = (index * _GOLDEN_RATIO) % 1.0
    saturation = (0.95, 0.7, 0.85)[index % 3]
    value = (1.0, 0.9, 0.75)[(index // 3) % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class Layers:
    """Masks as they lie on each other."""

    labels: NDArray[np.uint16]  # [H, W], the topmost mask, from 1 for the largest; 0 for none
    outlines: NDArray[np.bool_]  # [H, W], pixels at the edge of the topmost mask


def layers_of(records: Sequence[MaskRecord], size: tuple[int, int]) -> Layers:
    """The masks laid on each other in `painting_order`. Raises AnswerError for more than 65535."""
    require_labels(records)
    height, width = size
    labels, outlines = np.zeros((width, height), np.uint16), np.zeros((width, height), bool)  # as runs are, by columns
    for label, index in enumerate(while_wanted(painting_order(records)), start=1):
        box, crop = crop_of(runs_of(records[index]["segmentation"]), height)
        place = slice(box.x0, box.x1), slice(box.y0, box.y1)
        labels[place][crop] = label
        outlines[place][crop] = False
        outlines[place] |= outline_of(crop, box, size)
    return Layers(np.ascontiguousarray(labels.T), np.ascontiguousarray(outlines.T))


def outline_of(crop: NDArray[np.bool_], box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a mask with a 4-neighbour outside it. The image's border does not count as outside.

    `crop` [columns, rows] is the mask in its box, of an image of `size` (height, width).
    """
    height, width = size
    inner = crop.copy()
    inner[1:] &= crop[:-1]
    inner[:-1] &= crop[1:]
    inner[:, 1:] &= crop[:, :-1]
    inner[:, :-1] &= crop[:, 1:]
    inner[: int(box.x0 > 0)] = False
    inner[:, : int(box.y0 > 0)] = False
    inner[len(inner) - int(box.x1 < width) :] = False
    inner[:, inner.shape[1] - int(box.y1 < height) :] = False
    return crop & ~inner


def overlay(image: NDArray[np.uint8], records: Sequence[MaskRecord], options: Options = _DEFAULTS) -> NDArray[np.uint8]:
    """Draws masks over their image, uint8 RGB [H, W, 3], largest first, so that small ones are on top.

    Without options, each mask is filled in a colour of its own, with a white outline. With one, masks that touch have
    colours of `PALETTE` that differ. Raises AnswerError for more than 65535 masks.
    """
    layers = layers_of(records, image.shape[:2])
    if options.style is None and options.opacity is None and not options.ids:
        return _filled(image, layers, [colour(i) for i in range(len(records))], _OPACITY)
    pairs = touching(layers.labels) - 1
    colours = [PALETTE[i] for i in assign_colours(len(records), map(tuple, pairs.tolist()))]
    drawn = _draw(options.style or "fill", options.opacity, image, records, layers, colours)
    return write_ids(drawn, layers.labels, painting_order(records)) if options.ids else drawn


def _draw(
    style: Style,
    opacity: float | None,
    image: NDArray[np.uint8],
    records: Sequence[MaskRecord],
    layers: Layers,
    colours: Sequence[tuple[int, int, int]],
) -> NDArray[np.uint8]:
    if style == "fill":
        return _filled(image, layers, colours, _OPACITY if opacity is None else opacity)
    if style == "outline":
        lines = Layers(layers.labels, _thicker(layers, _line_width(image)))
        return _blended(image, np.where(lines.outlines, lines.labels, np.uint16(0)), colours, opacity)
    return _blended(image, _boxes(records, image.shape[:2], _line_width(image)), colours, opacity)


def _filled(
    image: NDArray[np.uint8], layers: Layers, colours: Sequence[tuple[int, int, int]], opacity: float
) -> NDArray[np.uint8]:
    drawn = _blended(image, layers.labels, colours, opacity)
    drawn[layers.outlines] = _WHITE
    return drawn


def _blended(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    colours: Sequence[tuple[int, int, int]],
    opacity: float | None,
) -> NDArray[np.uint8]:
    """The image with the colour of each pixel's label over it; the colour alone if `opacity` is None."""
    opacity = 1.0 if opacity is None else opacity
    table = np.array([(0, 0, 0), *colours], np.float32)
    drawn = image.copy()
    for top in range(0, len(image), _STRIP):  # in strips, because blending takes ten times the memory of its rows
        rows = slice(top, top + _STRIP)
        masked = labels[rows] > 0
        blended = image[rows][masked] * np.float32(1 - opacity) + table[labels[rows][masked]] * np.float32(opacity)
        drawn[rows][masked] = blended.round()
    return drawn


def _line_width(image: NDArray[np.uint8]) -> int:
    return 1 + min(image.shape[:2]) // _PIXELS_OF_LINE


def _thicker(layers: Layers, width: int) -> NDArray[np.bool_]:
    """Outlines that grow inward to a width of so many pixels."""
    labels, lines = layers.labels, layers.outlines.copy()
    for _ in range(width - 1):
        before = lines.copy()
        same = labels[1:] == labels[:-1]
        lines[1:] |= before[:-1] & same
        lines[:-1] |= before[1:] & same
        same = labels[:, 1:] == labels[:, :-1]
        lines[:, 1:] |= before[:, :-1] & same
        lines[:, :-1] |= before[:, 1:] & same
    return lines


def _boxes(records: Sequence[MaskRecord], size: tuple[int, int], width: int) -> NDArray[np.uint16]:
    """A label map [H, W] of the boxes' lines, which lie inside the boxes. Those of smaller masks are on top."""
    labels = np.zeros(size, np.uint16)
    for label, index in enumerate(while_wanted(painting_order(records)), start=1):
        box = box_of(runs_of(records[index]["segmentation"]), size[0])
        inside = labels[box.y0 : box.y1, box.x0 : box.x1]
        for side in (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:]):
            side[:] = label
    return labels


def encode(image: Segmented) -> bytes:
    """The overlay as a PNG of the photograph's size."""
    assert image.image is not None  # `render` has seen to it
    return encode_png(overlay(image.image, image.records, image.options))
