"""Prompts: the grid points of each crop of an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.utils.amg import build_all_layer_point_grids
from torch import Tensor

from sam2_amg.config import MOST_POINTS, GeneratorConfig, PointGrid
from sam2_amg.errors import ParameterError
from sam2_amg.postprocess.crops import Crop

_CACHED = 8  # the largest regular grids of five layers take 5 MiB


class PointGrids:
    """The point grids of a configuration, one per crop layer: its own, or sam2's regular ones."""

    def __init__(self, config: GeneratorConfig) -> None:
        """`grids` are float64 [P, 2], (x, y) in [0, 1] x [0, 1], not to be written to."""
        if config.point_grids is not None:
            self.grids: Sequence[NDArray[np.float64]] = [np.array(grid, np.float64) for grid in config.point_grids]
        else:
            self.grids = _regular_grids(
                config.points_per_side, config.crop_n_layers, config.crop_n_points_downscale_factor
            )

    def __call__(self, crop: Crop) -> Tensor:
        """Points of a crop in pixels of the crop, float32 [P, 2], (x, y), row by row, in host memory."""
        height, width = crop.size
        return torch.as_tensor(self.grids[crop.layer] * np.array([[width, height]]), dtype=torch.float32)


@lru_cache(maxsize=_CACHED)
def _regular_grids(points_per_side: int, crop_layers: int, downscale_factor: int) -> list[NDArray[np.float64]]:
    """sam2's grids, evenly spaced, a grid a crop layer."""
    return build_all_layer_point_grids(points_per_side, crop_layers, downscale_factor)


def grids_of_points(points: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[PointGrid]:
    """`GeneratorConfig.point_grids` of a caller's own n points, (x, y) in pixels of an image of `size` (height, width).

    It has one grid, that of the whole image; crops need more. Raises ParameterError "points" for more than
    `MOST_POINTS` points, for none, and for points outside the image.
    """
    height, width = size
    if not 1 <= len(points) <= MOST_POINTS:
        raise ParameterError("points", f"must be 1 to {MOST_POINTS} points, not {len(points)}")
    for point in points:
        if len(point) != 2:
            raise ParameterError("points", f"must be pairs (x, y), not {list(point)[:3]}")
        x, y = point
        if not (0 <= x <= width and 0 <= y <= height):
            raise ParameterError("points", f"must be within the image of {width} x {height} pixels, not ({x}, {y})")
    return (tuple((float(x) / width, float(y) / height) for x, y in points),)


def to_model_input(points: Tensor, size: tuple[int, int], image_size: int) -> Tensor:
    """Points in pixels of an image of `size` (height, width) -> pixels of the model's square input. [P, 2]"""
    height, width = size
    return points / torch.tensor([width, height], dtype=points.dtype, device=points.device) * image_size
