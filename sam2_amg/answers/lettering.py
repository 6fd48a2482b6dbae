"""Numbers written on masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sam2_amg.answers.runs import Runs, runs_by_label
from sam2_amg.process.wanted import while_wanted

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_LONG = 0.9  # a column's run counts as long if it has this share of the longest
_LETTERS_A_SIDE = 45  # of the image's shorter side
_SMALLEST = 10  # pixels


def inside_point(runs: Runs, height: int) -> tuple[int, int]:
    """A pixel (x, y) of a mask, away from its edge: the middle of a long run.

    `runs` are split at the ends of columns. Of the columns whose run is about as long as the longest, it is the middle
    one.
    """
    lengths = runs.ends - runs.starts
    long = np.flatnonzero(lengths >= _LONG * lengths.max())
    run = long[len(long) // 2]
    middle = int(runs.starts[run] + (lengths[run] - 1) // 2)
    return middle // height, middle % height


def write_ids(image: NDArray[np.uint8], labels: NDArray[np.uint16], order: Sequence[int]) -> NDArray[np.uint8]:
    """The image, uint8 RGB [H, W, 3], with the number of each mask on it: the index of its record plus 1.

    The mask with label k of `labels` [H, W] is that of record `order[k - 1]`. A mask of which nothing is visible gets
    no number.
    """
    height, width = labels.shape
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    size = max(_SMALLEST, min(height, width) // _LETTERS_A_SIDE)
    font = ImageFont.load_default(size)
    by_label = runs_by_label(np.ascontiguousarray(labels.T), len(order), split=True)
    for index, runs in while_wanted(zip(order, by_label, strict=True)):
        if len(runs.starts):
            _write(draw, str(index + 1), inside_point(runs, height), font, size // 8 + 1)
    return np.array(picture)


def _write(draw: ImageDraw.ImageDraw, text: str, point: tuple[int, int], font: Font, stroke: int) -> None:
    """Writes white letters with a black edge around a pixel (x, y), or as close to it as the picture has room."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font, anchor="mm", stroke_width=stroke)
    width, height = draw.im.size
    x = max(min(point[0] + 0.5, width - right), -left)
    y = max(min(point[1] + 0.5, height - bottom), -top)
    draw.text((x, y), text, "white", font, anchor="mm", stroke_width=stroke, stroke_fill="black")
