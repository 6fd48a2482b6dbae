"""Parameters of the generator: what they may be, and how a refusal names them."""

from __future__ import annotations

from typing import Any

import pytest

from sam2_amg.config import GeneratorConfig
from sam2_amg.errors import ParameterError

POINT = ((0.5, 0.5),)


@pytest.mark.parametrize(
    ("values", "name", "problem"),
    [
        ({"points_per_side": 0}, "points_per_side", "must be from 1 to 256, not 0"),
        ({"mask_threshold": float("nan")}, "mask_threshold", "must be from -100 to 100, not nan"),
        ({"min_mask_region_area": -1}, "min_mask_region_area", "must be from 0 to 1073741824, not -1"),
        ({"use_m2m": 1}, "use_m2m", "must be true or false, not 1"),
        ({"multimask_output": None}, "multimask_output", "must be true or false, not None"),
        ({"point_grids": ()}, "point_grids", "must be 1 grid without crops, not 0"),
        (
            {"point_grids": (POINT,), "crop_n_layers": 1},
            "point_grids",
            "must be 2 grids, one a crop layer with that of the whole image, not 1",
        ),
        ({"point_grids": ((),)}, "point_grids", "must be grids of 1 to 65536 points, not 0"),
        ({"point_grids": (POINT * 65537,)}, "point_grids", "must be grids of 1 to 65536 points, not 65537"),
        (
            {"point_grids": (((0.5, 7),),)},
            "point_grids",
            "must be grids of points (x, y) from 0 to 1, not (0.5, 7)",
        ),
        ({"point_grids": (((0.5,),),)}, "point_grids", "must be grids of points (x, y) from 0 to 1, not (0.5,)"),
    ],
    ids=str,
)
def test_values_that_are_refused(values: dict[str, Any], name: str, problem: str) -> None:
    """An HTTP layer says the name and the problem, a command line the flag and the problem."""
    with pytest.raises(ParameterError) as refused:
        GeneratorConfig(**values)
    assert (refused.value.name, refused.value.problem) == (name, problem)
    assert str(refused.value) == f"--{name} {problem}"


def test_own_grids_take_the_place_of_points_per_side() -> None:
    config = GeneratorConfig(
        points_per_side=1, crop_n_layers=2, crop_n_points_downscale_factor=4, point_grids=(POINT, POINT * 3, POINT)
    )
    assert config.points_by_layer == (1, 3, 1)
    assert config.prompts == 1 + 4 * 3 + 16 * 1
    assert hash(config) != hash(GeneratorConfig())


def test_how_much_work_it_is() -> None:
    assert (GeneratorConfig().points_by_layer, GeneratorConfig().prompts) == ((1024,), 1024)
    crops = {"points_per_side": 9, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2}
    assert GeneratorConfig(**crops).points_by_layer == (81, 16, 4)
    assert GeneratorConfig(**crops).prompts == 81 + 4 * 16 + 16 * 4
    assert GeneratorConfig(points_per_side=2, use_m2m=True).prompts == 16
    assert GeneratorConfig(points_per_side=2, use_m2m=True, multimask_output=False).prompts == 8
