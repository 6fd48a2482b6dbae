"""The interface of every generator and its result: one record per mask, with sam2's keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig
from sam2_amg.postprocess.rle import UncompressedRle


class MaskRecord(TypedDict):
    """One mask, in the format of `SAM2AutomaticMaskGenerator`. Boxes are XYWH in pixels of the photograph."""

    segmentation: UncompressedRle
    area: int
    bbox: list[float]
    predicted_iou: float
    point_coords: list[list[float]]
    stability_score: float
    crop_box: list[float]


PendingResult = Callable[[], list[MaskRecord]]
"""Converts masks to records, whose run lengths may be arrays. It uses only host memory and may be called on any thread.
"""


class Generator(Protocol):
    """Makes the masks of an image. `config` has its defaults filled in.

    Each call may have a configuration of its own instead; see `for_call`.
    """

    config: GeneratorConfig
    batch_size: int = 1  # maximum number of images that `encode` takes
    workers: int = 1  # number of threads that may call `segment` concurrently

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3], highest predicted IoU first (with crops: smallest crops first)."""
        ...

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """The features of each image, for `segment` in the same thread; None lets `segment` encode the image."""
        return [None] * len(images)

    def segment(
        self, image: NDArray[np.uint8], features: Any = None, config: GeneratorConfig | None = None
    ) -> PendingResult:
        """Segments an image; the returned function makes the records, while this thread may take the next image."""
        records = self.generate(image, config)
        return lambda: records

    def segment_with_less_memory(
        self, image: NDArray[np.uint8], config: GeneratorConfig | None = None
    ) -> PendingResult:
        """`segment` once more, after it ran out of memory; takes less of it where the generator can."""
        return self.segment(image, config=config)

    def require_device(self) -> None:
        """Raises what the device raises if an error has made it useless to this process."""
        return


def with_lists(records: list[MaskRecord]) -> list[MaskRecord]:
    """The same records, changed: their run lengths are lists, as sam2 returns them."""
    for record in records:
        counts = record["segmentation"]["counts"]
        if isinstance(counts, np.ndarray):
            record["segmentation"]["counts"] = counts.tolist()
    return records


def for_call(config: GeneratorConfig | None, own: GeneratorConfig) -> GeneratorConfig:
    """The configuration of a call: `config`, or the generator's `own` for None.

    Memory stays what the generator was built for: `points_per_batch` is at most its own, `mask_memory_mib` is its own.
    """
    if config is None:
        return own
    assert own.points_per_batch is not None
    batch = min(config.points_per_batch or own.points_per_batch, own.points_per_batch)
    return replace(config, points_per_batch=batch, mask_memory_mib=own.mask_memory_mib)
