"""What the formats have in common: their input, their options, their output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

Counts = Literal["compressed", "uncompressed"]
Style = Literal["fill", "outline", "boxes"]

COUNTS: tuple[Counts, ...] = get_args(Counts)
STYLES: tuple[Style, ...] = get_args(Style)


class AnswerError(ValueError):
    """An option has a value that is not allowed, or a format cannot hold the masks. The message is one line that says
    what is allowed."""


def require(condition: bool, name: str, need: str, value: object) -> None:
    """Raises AnswerError unless the condition holds."""
    if not condition:
        raise AnswerError(f"{name} must be {need}, not {value}")


@dataclass(frozen=True)
class Options:
    """Options of the formats. Each format reads its own, and ignores the others.

    `counts`: the run lengths of `rle`, `records` and `coco`; None for the format's default.
    `tolerance`: how far `polygons` may deviate from a mask's edge, in pixels; 0 for exact polygons.
    `style`, `opacity` (0 to 1) and `ids`: how `png` draws masks. If all three have their defaults, `png` is the picture
    of `POST /upload`.

    Raises AnswerError if a value is not allowed.
    """

    counts: Counts | None = None
    tolerance: float = 0.0
    style: Style | None = None
    opacity: float | None = None
    ids: bool = False

    def __post_init__(self) -> None:
        require(self.counts in (None, *COUNTS), "counts", " or ".join(COUNTS), self.counts)
        require(0 <= self.tolerance <= 1000, "tolerance", "from 0 to 1000 pixels", self.tolerance)
        require(self.style in (None, *STYLES), "style", ", ".join(STYLES[:-1]) + f" or {STYLES[-1]}", self.style)
        require(self.opacity is None or 0 <= self.opacity <= 1, "opacity", "from 0 to 1", self.opacity)


@dataclass(frozen=True)
class Segmented:
    """An image and its masks. `size` is (height, width). `image` is uint8 RGB [H, W, 3]; only `png` needs it."""

    records: list[MaskRecord]
    size: tuple[int, int]
    name: str = ""
    options: Options = field(default_factory=Options)
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Answer:
    """Bytes of a media type. `suffix` is what the name of a file of them ends in, with its dot."""

    data: bytes
    mimetype: str
    suffix: str
