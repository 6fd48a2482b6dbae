"""Prompts: which crops of an image are searched, and at which points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sam2.utils.amg import build_all_layer_point_grids, generate_crop_boxes
from torch import Tensor

from sam2_amg.config import GeneratorConfig


@dataclass(frozen=True)
class Crop:
    """A rectangle of the image, corners in pixels, x1 and y1 exclusive, and its layer (0 is the whole image)."""

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
        """[x0, y0, x1, y1], as sam2 writes it."""
        return [self.x0, self.y0, self.x1, self.y1]


def is_empty(crop_box: Sequence[int]) -> bool:
    """Whether a crop holds no pixel, as happens when an image of a pixel or two is cut further; sam2 fails on it."""
    x0, y0, x1, y1 = crop_box
    return x1 <= x0 or y1 <= y0


def crops_of(size: tuple[int, int], config: GeneratorConfig) -> list[Crop]:
    """The crops of an image of `size` (height, width), whole image first, in sam2's order."""
    boxes, layers = generate_crop_boxes(size, config.crop_n_layers, config.crop_overlap_ratio)
    return [
        Crop(x0=box[0], y0=box[1], x1=box[2], y1=box[3], layer=layer)
        for box, layer in zip(boxes, layers, strict=True)
        if not is_empty(box)
    ]


class PointGrids:
    """sam2's point grids, one a crop layer, evenly spaced in [0, 1] x [0, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        self.grids = build_all_layer_point_grids(
            config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
        )

    def __call__(self, crop: Crop) -> Tensor:
        """Points of a crop in its own pixels, float32 [P, 2], (x, y), row by row, in host memory."""
        height, width = crop.size
        return torch.as_tensor(self.grids[crop.layer] * np.array([[width, height]]), dtype=torch.float32)


def to_model_input(points: Tensor, size: tuple[int, int], image_size: int) -> Tensor:
    """Points in pixels of an image of `size` (height, width) -> pixels of the model's square input. [P, 2]"""
    height, width = size
    return points / torch.tensor([width, height], dtype=points.dtype, device=points.device) * image_size
