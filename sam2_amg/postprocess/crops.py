"""Crops: the rectangles of an image that are searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sam2.utils.amg import generate_crop_boxes

from sam2_amg.config import GeneratorConfig


@dataclass(frozen=True)
class Crop:
    """A rectangle of the image in pixels, x1 and y1 exclusive. Layer 0 is the whole image."""

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def box(self) -> list[int]:
        """[x0, y0, x1, y1], sam2's format."""
        return [self.x0, self.y0, self.x1, self.y1]


def is_empty(crop_box: Sequence[int]) -> bool:
    """Whether a crop has no pixels, which happens in images of one or two pixels. sam2 fails on such crops."""
    x0, y0, x1, y1 = crop_box
    return x1 <= x0 or y1 <= y0


def crops_of(size: tuple[int, int], config: GeneratorConfig) -> list[Crop]:
    """The non-empty crops of an image of `size` (height, width) in sam2's order, the whole image first."""
    boxes, layers = generate_crop_boxes(size, config.crop_n_layers, config.crop_overlap_ratio)
    return [
        Crop(x0=box[0], y0=box[1], x1=box[2], y1=box[3], layer=layer)
        for box, layer in zip(boxes, layers, strict=True)
        if not is_empty(box)
    ]
