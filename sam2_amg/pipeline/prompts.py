"""Prompts: the grid points of each crop of an image."""

from __future__ import annotations

import numpy as np
import torch
from sam2.utils.amg import build_all_layer_point_grids
from torch import Tensor

from sam2_amg.config import GeneratorConfig
from sam2_amg.postprocess.crops import Crop


class PointGrids:
    """sam2's point grids, one per crop layer, evenly spaced in [0, 1] x [0, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        self.grids = build_all_layer_point_grids(
            config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
        )

    def __call__(self, crop: Crop) -> Tensor:
        """Points of a crop in pixels of the crop, float32 [P, 2], (x, y), row by row, in host memory."""
        height, width = crop.size
        return torch.as_tensor(self.grids[crop.layer] * np.array([[width, height]]), dtype=torch.float32)


def to_model_input(points: Tensor, size: tuple[int, int], image_size: int) -> Tensor:
    """Points in pixels of an image of `size` (height, width) -> pixels of the model's square input. [P, 2]"""
    height, width = size
    return points / torch.tensor([width, height], dtype=points.dtype, device=points.device) * image_size
