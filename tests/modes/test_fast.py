"""Mode fast finds what mode ao finds; and of it and furious, that nothing compiles once they are built."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import DEVICE, assert_all_but_equal, drawn_image, photograph, shares_with_partners
from pycocotools import mask as coco_mask
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator


@pytest.mark.parametrize("name", ["dog", "groceries"])
def test_fast_finds_what_ao_finds(
    fast: Generator, demo_model: SAM2Base, few_points: GeneratorConfig, name: str
) -> None:
    model = deepcopy(demo_model).to(DEVICE)
    expected = build_generator(model, Mode.AO, few_points, DEVICE).generate(photograph(name))
    found = fast.generate(photograph(name))
    assert len(found) == len(expected) >= 3
    for record, twin in zip(found, expected, strict=True):
        assert record["predicted_iou"] == pytest.approx(twin["predicted_iou"], abs=1e-4)
        size = record["segmentation"]["size"]
        runs = [coco_mask.frPyObjects(dict(one["segmentation"]), *size) for one in (record, twin)]
        assert coco_mask.iou([runs[0]], [runs[1]], [0])[0, 0] >= 0.999


@pytest.mark.parametrize("crop_layers", [0, 1])
def test_nothing_found(compiled: Generator, crop_layers: int) -> None:
    assert isinstance(compiled, MaskGenerator)
    config = replace(compiled.config, points_per_side=2, crop_n_layers=crop_layers, pred_iou_thresh=1.0)
    generator = MaskGenerator(compiled.stages, config, compiled.image_size, compiled.device)
    assert generator.generate(drawn_image(40, 50)) == []


def test_a_second_try_compiles_nothing_and_finds_the_same(compiled: Generator) -> None:
    """After a lack of memory; the number of points is compiled, and stays."""
    before = count_compilations()
    expected = compiled.generate(photograph("groceries"))
    assert len(expected) >= 3
    assert_all_but_equal(compiled.segment_with_less_memory(photograph("groceries"))(), expected)
    assert count_compilations() == before


# thresholds of 0, of 1 and of multiples of 16, and numbers of points that are less, and more, than is compiled
REQUESTS: tuple[dict[str, Any], ...] = (
    {},
    {"points_per_side": 1},
    {"points_per_side": 5, "points_per_batch": 1},
    {"points_per_side": 17, "pred_iou_thresh": 0.7},
    {"point_grids": (((0.5, 0.5), (0.1, 0.9), (1.0, 0.0)),)},
    {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    {"pred_iou_thresh": 1.0},
    {"mask_threshold": 1.0, "stability_score_offset": 0.0},
    {"mask_threshold": -16.0, "stability_score_offset": 16.0},
    {"box_nms_thresh": 1.0, "min_mask_region_area": 100},
    {"crop_n_layers": 1, "crop_overlap_ratio": 0.0, "crop_nms_thresh": 0.0},
    {"crop_n_layers": 2, "points_per_side": 4, "crop_n_points_downscale_factor": 2},
    {"use_m2m": True},
    {"multimask_output": False},
    {"use_m2m": True, "multimask_output": False, "points_per_batch": 2},
)


def test_no_parameter_compiles_anything(compiled: Generator) -> None:
    """On a CPU a few requests; more are in test_jit.py, where the network is smaller."""
    before = count_compilations()
    for changes in REQUESTS if DEVICE.type == "cuda" else REQUESTS[4::5]:
        compiled.generate(drawn_image(60, 80), replace(compiled.config, **changes))
    assert count_compilations() == before


@pytest.mark.parametrize("changes", [REQUESTS[-1], REQUESTS[-2], REQUESTS[4]], ids=("m2m", "one mask", "points"))
def test_parameters_of_a_call_mean_what_they_mean_in_ao(
    compiled: Generator,
    demo_model: SAM2Base,
    few_points: GeneratorConfig,
    changes: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    """sam2's decoder has the weights that were loaded, whatever a mode did to them. In furious masks whose score is at
    a threshold may come and go."""
    is_furious = "furious" in request.node.callspec.id
    ao = build_generator(deepcopy(demo_model).to(DEVICE), Mode.AO, few_points, DEVICE)
    config = replace(compiled.config, **changes)
    found, expected = (generator.generate(photograph("dog"), config) for generator in (compiled, ao))
    assert len(found) == len(expected) >= 2 or is_furious
    for share in shares_with_partners(found, expected, iou=0.98):
        assert share >= (0.9 if is_furious else 1)


@pytest.mark.gpu
def test_no_size_compiles_anything(compiled: Generator) -> None:
    """60 sizes from one pixel to 2000, and none is met for the first time as far as the compilers are concerned; for a
    CPU it is in test_jit.py."""
    random = np.random.default_rng(1)
    sides = random.integers(2, 160, (58, 2)).tolist()
    before = count_compilations()
    assert before >= 4
    for i, (height, width) in enumerate([(1, 1), *sides, (2000, 30)]):
        compiled.generate(drawn_image(height, width, seed=i))
    assert count_compilations() == before
