"""Every parameter of a call means in ao what it means in sam2's generator, which is baseline.

With sam2's decoder, ao's records equal baseline's to the last bit, in every field; in larger images but for a pixel in
which a logit is as large as the threshold. With the folded decoder they have the same masks but for rounding: see
`assert_equal_but_for_rounding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import CPU, assert_all_but_equal, photograph
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.utils.amg import rle_to_mask
from small_model import small_demo_model

from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from sam2_amg.network.decoder import PlainDecoder
from sam2_amg.pipeline.base import Generator, MaskRecord
from sam2_amg.pipeline.generator import MaskGenerator

POINTS = ((0.2, 0.3), (0.5, 0.5), (0.52, 0.6), (0.8, 0.4), (0.3, 0.85), (0.95, 0.05))
OTHERS = ((0.35, 0.45), (0.6, 0.7), (0.1, 0.1), (0.7, 0.2))
LENIENT = {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.75}  # few points find little in crops
CROPS = {"crop_n_layers": 1, "points_per_side": 2, **LENIENT}
# what else is set, and two values that have different answers
CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "points_per_side": ({}, 3, 5),
    "points_per_batch": ({"points_per_side": 5}, 3, 64),  # has the same answer
    "pred_iou_thresh": ({}, 0.0, 0.75),
    "stability_score_thresh": ({}, 0.0, 0.97),
    "stability_score_offset": ({}, 0.3, 4.0),
    "mask_threshold": ({}, -1.5, 2.0),
    "box_nms_thresh": ({}, 0.2, 1.0),
    "crop_n_layers": (CROPS, 0, 2),
    "crop_nms_thresh": (CROPS, 0.1, 1.0),
    "crop_overlap_ratio": (CROPS, 0.05, 0.7),
    "crop_n_points_downscale_factor": (CROPS, 1, 2),
    "min_mask_region_area": ({}, 30, 20000),
    "use_m2m": ({}, False, True),
    "multimask_output": ({"box_nms_thresh": 1.0}, True, False),
    "point_grids": (LENIENT, (POINTS,), (OTHERS,)),
}
MORE = (
    {"use_m2m": True, "multimask_output": False},
    {"use_m2m": True, "multimask_output": False, **CROPS, "min_mask_region_area": 500},
    {"point_grids": (POINTS, POINTS[:2]), "crop_n_layers": 1},
    {"min_mask_region_area": 1 << 30},
    {"mask_threshold": 1.0, "use_m2m": True, "stability_score_offset": 0.5, "box_nms_thresh": 0.9},
)
STEPS = {"dog": 1, "truck": 3, "groceries": 1}  # truck.jpg is large
TWO_LAYERS = {"crop_n_layers": 2, "points_per_side": 4, "crop_n_points_downscale_factor": 2}
TWO_LAYERS_EACH = (
    {"crop_nms_thresh": 0.1},
    {"crop_nms_thresh": 1.0, "box_nms_thresh": 1.0},
    {"crop_overlap_ratio": 0.1},
    {"crop_n_points_downscale_factor": 1, "points_per_side": 3},
    {"use_m2m": True},
    {"multimask_output": False},
    {"min_mask_region_area": 300},
    {"point_grids": (POINTS, POINTS[:2], POINTS[1:3])},
)


@dataclass(frozen=True)
class Generators:
    """All of one model."""

    baseline: Generator
    with_sam2_decoder: Generator
    ao: Generator


def make_generators(model: SAM2Base, config: GeneratorConfig) -> Generators:
    """With baseline's number of points at a time, so that sums are made in the same order."""
    config = replace(config, points_per_batch=64)
    baseline, ao, other = (build_generator(model, mode, config, CPU) for mode in (Mode.BASELINE, Mode.AO, Mode.AO))
    assert isinstance(other, MaskGenerator)
    other.stages = replace(other.stages, decoder=PlainDecoder(model))
    return Generators(baseline, other, ao)


@contextmanager
def encoding_each_crop_once(model: SAM2Base) -> Iterator[None]:
    """Encoding takes most of the time, and does not depend on what is tested here."""
    known: dict[bytes, dict[str, Any]] = {}
    encode = model.forward_image

    def forward_image(pixels: torch.Tensor) -> dict[str, Any]:
        key = pixels.numpy().tobytes()
        if key not in known:
            known[key] = encode(pixels)
        return dict(known[key])

    model.forward_image = forward_image
    try:
        yield
    finally:
        del model.forward_image


def assert_equal_but_for_rounding(records: list[MaskRecord], expected: list[MaskRecord]) -> None:
    """Points, crops and sizes are equal; predicted IoUs to 2e-5, stability to 1e-3, masks to an IoU of 0.9998 or a
    pixel, areas as well, and boxes to a pixel."""
    assert_all_but_equal(records, expected)
    for record, twin in zip(sorted(records, key=source), sorted(expected, key=source), strict=True):
        assert record["segmentation"]["size"] == twin["segmentation"]["size"]
        assert record["area"] == pytest.approx(twin["area"], rel=2e-4, abs=1)
        assert record["bbox"] == pytest.approx(twin["bbox"], abs=1)


def source(record: MaskRecord) -> tuple[Any, ...]:
    return record["crop_box"], record["point_coords"], record["predicted_iou"]


def assert_equal(records: list[MaskRecord], expected: list[MaskRecord], pixels: int) -> None:
    """The same records in the same order, but for up to so many pixels of a mask."""
    assert len(records) == len(expected)
    for record, twin in zip(records, expected, strict=True):
        if repr(record) == repr(twin):  # the stability of an empty mask is NaN, which does not equal itself
            continue
        assert (source(record), record["bbox"]) == (source(twin), twin["bbox"])
        assert record["stability_score"] == pytest.approx(twin["stability_score"], abs=1e-4)
        different = rle_to_mask(record["segmentation"]) != rle_to_mask(twin["segmentation"])
        assert 1 <= different.sum() <= pixels
        assert abs(record["area"] - twin["area"]) <= pixels


def answer(generators: Generators, image: NDArray[np.uint8], config: GeneratorConfig, pixels: int) -> list[MaskRecord]:
    """Baseline's answer, which the others have to give, too."""
    expected = generators.baseline.generate(image, config)
    assert_equal(generators.with_sam2_decoder.generate(image, config), expected, pixels)
    if config.multimask_output and not config.use_m2m:
        found = generators.ao.generate(image, config)
        if config.pred_iou_thresh * config.stability_score_thresh > 0:
            assert_equal_but_for_rounding(found, expected)
        else:  # among very many bad masks, some boxes overlap just as much as is allowed
            assert len(found) == pytest.approx(len(expected), rel=0.05)
    return expected


def check_parameters(
    model: SAM2Base, image: NDArray[np.uint8], config: GeneratorConfig, more: Sequence[dict[str, Any]], pixels: int = 0
) -> list[int]:
    """The number of masks in each answer."""
    counts = []
    with encoding_each_crop_once(model):
        generators = make_generators(model, config)
        config = replace(config, points_per_batch=64)
        for name, (others, *values) in CASES.items():
            configs = (replace(config, **{**others, name: value}) for value in values)
            if name == "points_per_batch":
                one, two = (generators.ao.generate(image, config) for config in configs)
                assert_equal_but_for_rounding(one, two)
            else:
                one, two = (answer(generators, image, config, pixels) for config in configs)
                assert repr(one) != repr(two), name
            counts += [len(one), len(two)]
        counts += [len(answer(generators, image, replace(config, **others), pixels)) for others in more]
    return counts


def test_every_parameter_has_a_case() -> None:
    assert CASES.keys() | {"mask_memory_mib"} == {field.name for field in fields(GeneratorConfig)}


def test_parameters_of_a_call_mean_what_they_mean_in_sam2(demo_config: GeneratorConfig) -> None:
    image = np.ascontiguousarray(photograph("truck")[::6, ::6])
    counts = check_parameters(small_demo_model(128), image, replace(demo_config, points_per_side=3), MORE)
    assert min(counts) >= 1, counts


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_parameters_mean_what_they_mean_in_sam2_on_photographs(
    demo_model: SAM2Base, demo_config: GeneratorConfig, name: str
) -> None:
    """With the model that ships, larger images and crops of two layers."""
    more = [*MORE, *({**TWO_LAYERS, **others} for others in TWO_LAYERS_EACH)]
    image = np.ascontiguousarray(photograph(name)[:: STEPS[name], :: STEPS[name]])
    counts = check_parameters(demo_model, image, replace(demo_config, points_per_side=5), more, pixels=2)
    assert min(counts) >= 1, counts
