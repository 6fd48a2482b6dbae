"""The parameters of a request: what they may be, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sam2_amg.answers.filters import Filters
from sam2_amg.answers.options import Options
from sam2_amg.answers.render import FORMATS
from sam2_amg.config import Bounds, GeneratorConfig
from sam2_amg.decoding import STRETCHES
from sam2_amg.errors import ParameterError
from sam2_amg.parameters import (
    APPLIES,
    NAMES,
    OF_GENERATOR,
    Parameters,
    UnknownParameter,
    bounded,
    merged,
    read_texts,
    read_values,
    schemas,
)

OWN = GeneratorConfig(pred_iou_thresh=0.6)
MODEL = bounded(Bounds())


def read(**texts: str) -> Parameters:
    return read_texts(texts.items(), MODEL)


def test_names_are_those_of_the_code() -> None:
    assert schemas(Parameters)["format"]["enum"] == list(FORMATS)
    assert schemas(Parameters)["stretch"]["enum"] == list(STRETCHES)
    assert {*OF_GENERATOR, *Filters.__dataclass_fields__, *Options.__dataclass_fields__} < set(NAMES)
    assert APPLIES.keys() == Options.__dataclass_fields__.keys()


def test_nothing_given_leaves_all_to_the_server() -> None:
    assert read().given == {}
    assert read().config(OWN, (4, 6)) is None
    assert (read().filters(), read().options("png")) == (Filters(), Options())


def test_texts_and_values_say_the_same() -> None:
    texts = {"points_per_side": "8", "use_m2m": "1", "opacity": ".5", "points": "[[1,2.5]]", "style": "boxes"}
    values = {"points_per_side": 8, "use_m2m": True, "opacity": 0.5, "points": [[1, 2.5]], "style": "boxes"}
    assert read(**texts) == read_values(values, MODEL)
    assert read_values({"points": None}, MODEL) == read()
    assert [read(ids=text).ids for text in ("1", "0", "true", "false")] == [True, False, True, False]
    assert read(points_per_side="8").config(OWN, (4, 6)) == replace(OWN, points_per_side=8)
    assert read(points="[[3,1]]").config(replace(OWN, crop_n_layers=2), (4, 6)) == replace(
        OWN, point_grids=(((0.5, 0.25),),)
    )


REFUSED = [
    ({"points_per_side": "8.5"}, "must be a whole number from 1 to 64, not '8.5'"),
    ({"points_per_side": "65"}, "must be a whole number from 1 to 64, not '65'"),
    ({"points_per_side": "8 "}, "must be a whole number from 1 to 64, not '8 '"),
    ({"crop_n_layers": "3"}, "must be a whole number from 0 to 2, not '3'"),
    ({"crop_overlap_ratio": "1"}, "must be a number of at least 0 and less than 1, not '1'"),
    ({"pred_iou_thresh": "nan"}, "must be a number from 0 to 1, not 'nan'"),
    ({"pred_iou_thresh": "0x1"}, "must be a number from 0 to 1, not '0x1'"),
    ({"use_m2m": "yes"}, "must be true or false (1 or 0), not 'yes'"),
    ({"style": "fills"}, "must be fill, outline or boxes, not 'fills'"),
    ({"counts": "é" * 99}, "must be compressed or uncompressed, not '" + "\\xe9" * 60 + "...'"),
    ({"points": "[[1,2],[3]]"}, "must be JSON [[x, y], ...] of 1 to 4096 points with x and y of at least 0, not"),
    ({"points": "1,2"}, "must be JSON [[x, y], ...] of 1 to 4096 points with x and y of at least 0, not '1,2'"),
    ({"points": str([[1, 1]] * 4097)}, "must be JSON [[x, y], ...] of 1 to 4096 points"),
    ({"point_grids": "[[[0.5,2]]]"}, "must be JSON [[[x, y], ...], ...] of 1 to 3 grids of 1 to 4096 points from 0"),
]


@pytest.mark.parametrize(("texts", "problem"), REFUSED, ids=lambda value: str(value)[:40])
def test_values_that_are_refused(texts: dict[str, str], problem: str) -> None:
    with pytest.raises(ParameterError) as refused:
        read(**texts)
    assert refused.value.name in texts
    assert refused.value.problem.startswith(problem)


@pytest.mark.parametrize("value", ["8", 8.5, True, [8]])
def test_json_has_no_texts_for_numbers(value: Any) -> None:
    with pytest.raises(ParameterError, match="points_per_side must be a whole number"):
        read_values({"points_per_side": value}, MODEL)


CONTRADICTIONS = [
    ({"min_mask_area": "6", "max_mask_area": "5"}, "min_mask_area is over max_mask_area"),
    ({"points": "[[1,1]]", "points_per_side": "4"}, "points takes the place of points_per_side"),
    ({"points": "[[1,1]]", "point_grids": "[[[0,0]]]"}, "points takes the place of point_grids"),
    ({"point_grids": "[[[0,0]]]", "points_per_side": "4"}, "point_grids takes the place of points_per_side"),
    ({"points": "[[1,1]]", "crop_n_layers": "1"}, "points has no crops, but crop_n_layers is 1"),
    ({"point_grids": "[[[0,0]]]", "crop_n_layers": "1"}, "point_grids must be 2 grids"),
    ({"crop_n_layers": "2", "crop_n_points_downscale_factor": "9"}, "crop_n_points_downscale_factor must be at least"),
]


@pytest.mark.parametrize(("texts", "message"), CONTRADICTIONS, ids=lambda value: str(value)[:40])
def test_contradictions(texts: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        read(**texts).check(OWN)


def test_points_outside_the_image() -> None:
    with pytest.raises(ParameterError, match=r"within the image of 6 x 4 pixels, not \(7.0, 1.0\)"):
        read(points="[[7,1]]").config(OWN, (4, 6))


def test_options_that_do_not_apply() -> None:
    assert read(tolerance="2").options("polygons") == Options(tolerance=2)
    with pytest.raises(ParameterError, match="counts does not apply to the format png; it does to rle, rec"):
        read(counts="compressed").options("png")
    with pytest.raises(ParameterError, match="ids does not apply to the format rle; it does to png"):
        read(ids="0").options("rle")


def test_names_that_are_not_there_or_twice() -> None:
    with pytest.raises(UnknownParameter, match=r"nms does not exist\. Known parameters: format, counts"):
        read(nms="1")
    with pytest.raises(UnknownParameter, match="format does not exist"):
        read_values({"format": "png"}, bounded(Bounds(), ("png",)))
    with pytest.raises(ParameterError, match="ids comes more than once"):
        read_texts([("ids", "1"), ("ids", "1")], MODEL)
    assert merged(read(ids="1"), read(style="fill")) == read(ids="1", style="fill")
    with pytest.raises(ParameterError, match="ids stands in the query and in the body"):
        merged(read(ids="0"), read(ids="1"))


def test_bounds_are_those_of_the_generator() -> None:
    """What the model allows, GeneratorConfig takes; a step beyond, it refuses."""
    for name in OF_GENERATOR:
        schema = schemas(Parameters)[name]
        if schema["type"] not in ("integer", "number"):
            continue
        step = 1 if schema["type"] == "integer" else 0.001
        lone = {"points_per_side": 256} if name == "crop_n_points_downscale_factor" else {}
        most = schema["maximum"] if "maximum" in schema else schema["exclusiveMaximum"] - step
        for value in (schema["minimum"], most):
            GeneratorConfig(**{name: value} | lone)
        for value in (schema["minimum"] - step, most + step):
            if name != "crop_n_points_downscale_factor" or value < 1:
                with pytest.raises(ParameterError, match=name):
                    GeneratorConfig(**{name: value} | lone)
