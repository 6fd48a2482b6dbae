"""What every generator is, and what it returns: one record a mask, with sam2's keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig
from sam2_amg.postprocess.rle import UncompressedRle


class MaskRecord(TypedDict):
    """One mask, as `SAM2AutomaticMaskGenerator` describes it; boxes are XYWH in pixels of the photograph."""

    segmentation: UncompressedRle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


PendingResult = Callable[[], list[MaskRecord]]
"""Masks that have left the device: called on any thread, it makes records of them."""


class Generator(Protocol):
    """Makes masks of an image, in whatever mode. `config` has no None left in it."""

    config: GeneratorConfig
    batch_size: int = 1  # most images that `encode` takes
    workers: int = 1  # threads that may call `segment` at a time

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3], best predicted IoU first (with crops: smallest crops first)."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """What `segment` is given with each of these images, in the same thread."""
        return [None] * len(images)

    def segment(self, image: NDArray[np.uint8], features: Any = None) -> PendingResult:
        """Masks in two steps: while one thread finishes an image, another can begin the next."""
        records = self.generate(image)
        return lambda: records

    def segment_with_less_memory(self, image: NDArray[np.uint8]) -> PendingResult:
        """`segment` once more, after it ran out of memory; takes less of it where the generator can."""
        return self.segment(image)

    def require_device(self) -> None:
        """Raises what the device raises if an error has made it useless to this process."""
        return
