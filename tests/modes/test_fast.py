"""Mode fast finds what mode ao finds; and of it and furious, that nothing compiles once they are built."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from helpers import DEVICE, assert_all_but_equal, drawn_image, photograph
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
