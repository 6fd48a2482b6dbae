"""What goes through the batch job: an input, its bytes, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2_amg.errors import StartupError

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord


class InputError(StartupError):
    """Inputs cannot be read now, but perhaps later: their shard is to be made then."""


@dataclass(frozen=True)
class Problem:
    """Why an image has no masks. `code` is one word, as in the server's errors; `message` is one line."""

    code: str
    message: str


@dataclass(frozen=True)
class Item:
    """An image's name in the output, and its bytes, or why there are none.

    Names that are not UTF-8 hold their bytes as lone surrogates (surrogateescape, PEP 383).
    """

    name: str
    data: bytes | Problem


@dataclass(frozen=True)
class Result:
    """What is written of an image.

    `sha256` is of the file's bytes, in hexadecimal; empty if they could not be read. `size` is (height, width) of the
    upright image; None if it could not be decoded. `records` have compressed run lengths as text, as
    `format=records&counts=compressed` of the server. `image` is uint8 RGB [H, W, 3], if the output draws on it.
    """

    name: str
    sha256: str
    size: tuple[int, int] | None
    found: list[MaskRecord] | Problem
    milliseconds: dict[str, float] = field(default_factory=dict)  # by stage
    image: NDArray[np.uint8] | None = None
