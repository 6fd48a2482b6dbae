"""The formats, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2_amg.answers import coco, labelmap, npz, overlay, polygons, records, rle
from sam2_amg.answers.options import Answer, AnswerError, Options, Segmented

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_DEFAULTS = Options()


@dataclass(frozen=True)
class Format:
    """How a format is made, and what it is called elsewhere."""

    encode: Callable[[Segmented], bytes]
    mimetype: str
    suffix: str
    needs_image: bool = False


FORMATS = {
    "rle": Format(rle.encode, "application/json", ".json"),
    "records": Format(records.encode, "application/json", ".json"),
    "coco": Format(coco.encode, "application/json", ".json"),
    "polygons": Format(polygons.encode, "application/json", ".json"),
    "labelmap": Format(labelmap.encode, "image/png", ".png"),
    "npz": Format(npz.encode, "application/octet-stream", ".npz"),
    "png": Format(overlay.encode, "image/png", ".png", needs_image=True),
}


def render(
    format: str,
    records: list[MaskRecord],
    size: tuple[int, int],
    name: str = "",
    options: Options = _DEFAULTS,
    image: NDArray[np.uint8] | None = None,
) -> Answer:
    """The masks of an image of `size` (height, width), in a format of `FORMATS`. It may run in any process.

    `name` is the image's file name, for `coco`. `image` is the photograph, uint8 RGB [H, W, 3], for `png`. Raises
    AnswerError for an unknown format, or if the format cannot hold the masks.
    """
    if format not in FORMATS:
        raise AnswerError(f"format must be one of {', '.join(FORMATS)}, not {format}")
    made = FORMATS[format]
    if made.needs_image and image is None:
        raise AnswerError(f"format {format} needs the photograph itself")
    return Answer(made.encode(Segmented(records, size, name, options, image)), made.mimetype, made.suffix)
