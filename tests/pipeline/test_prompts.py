"""Point grids: sam2's, a configuration's own, and a caller's points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sam2.utils.amg import build_all_layer_point_grids

from sam2_amg.config import GeneratorConfig
from sam2_amg.errors import ParameterError
from sam2_amg.pipeline.prompts import PointGrids, grids_of_points
from sam2_amg.postprocess.crops import crops_of


def test_regular_grids_are_sam2s_and_shared() -> None:
    config = GeneratorConfig(points_per_side=9, crop_n_layers=2, crop_n_points_downscale_factor=2)
    grids = PointGrids(config).grids
    for grid, twin in zip(grids, build_all_layer_point_grids(9, 2, 2), strict=True):
        np.testing.assert_array_equal(grid, twin)
    assert PointGrids(replace(config, pred_iou_thresh=0.1)).grids is grids


def test_own_grids_are_laid_over_each_crop() -> None:
    config = GeneratorConfig(crop_n_layers=1, point_grids=(((0.0, 0.0), (0.5, 1.0)), ((0.25, 0.75),)))
    grids = PointGrids(config)
    assert [grids(crop).tolist() for crop in crops_of((10, 20), config)][:2] == [[[0, 0], [10, 10]], [[3, 5.25]]]


def test_points_of_a_photograph_come_back_as_they_were() -> None:
    points = [(0, 0), (13, 7), (2249, 1499), (2250, 1500), (0.5, 1e-3), (1333.25, 701.125)]
    config = GeneratorConfig(point_grids=grids_of_points(points, (1500, 2250)))
    (crop,) = crops_of((1500, 2250), config)
    np.testing.assert_array_equal(PointGrids(config)(crop).numpy(), np.array(points, np.float32))


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([], "must be 1 to 65536 points, not 0"),
        ([(1, 1)] * 65537, "must be 1 to 65536 points, not 65537"),
        ([(1, 2, 3)], "must be pairs (x, y), not [1, 2, 3]"),
        ([(1, 1), (21, 5)], "must be within the image of 20 x 10 pixels, not (21, 5)"),
        ([(5, -1)], "must be within the image of 20 x 10 pixels, not (5, -1)"),
        ([(float("nan"), 1)], "must be within the image of 20 x 10 pixels, not (nan, 1)"),
    ],
    ids=("none", "many", "three", "x", "y", "nan"),
)
def test_points_that_are_refused(points: list, problem: str) -> None:
    with pytest.raises(ParameterError) as refused:
        grids_of_points(points, (10, 20))
    assert (refused.value.name, refused.value.problem) == ("points", problem)
