"""ao against baseline: with sam2's decoder the records are equal; with the folded one, all but equal."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from helpers import CPU, assert_all_but_equal, drawn_image, photograph
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.compilation.jit import compile_subgraphs
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator, build_stages, fill_in
from sam2_amg.network.decoder import Kept, PlainDecoder
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.candidates import Candidates, tabulate
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.postprocess.crops import crops_of

IMAGES = {
    "dog": lambda: photograph("dog"),
    "truck": lambda: photograph("truck")[::2, ::2],  # in full below
    "groceries": lambda: photograph("groceries"),
    "1x1": lambda: drawn_image(1, 1),
    "17x900": lambda: drawn_image(17, 900),
    "333x512": lambda: drawn_image(333, 512),
}
PHOTOGRAPHS = ("dog", "truck", "groceries")
FEWER = {"1x1": 1}  # masks in a picture; at least three in the others
POINTS_PER_SIDE = {0: 5, 1: 3}  # by crop layers: fewer where there are five crops
CASES = [(name, 0) for name in IMAGES] + [(name, 1) for name in ("truck", "1x1", "17x900")]  # of all below, if slow


def sam2_decoder_generator(model: SAM2Base, config: GeneratorConfig) -> Generator:
    """ao, but with sam2's own decoder, in batches as large as baseline's."""
    config = fill_in(replace(config, points_per_batch=64), Mode.AO, CPU)
    stages = replace(build_stages(model, Mode.AO, config, CPU, compile_subgraphs), decoder=PlainDecoder(model))
    return MaskGenerator(stages, config, model.image_size, CPU)


def assert_ao_finds_what_baseline_finds(
    model: SAM2Base, config: GeneratorConfig, image: NDArray[np.uint8], least: int
) -> None:
    expected = build_generator(model, Mode.BASELINE, config, CPU).generate(image)
    assert len(expected) >= least  # there is something to compare
    assert sam2_decoder_generator(model, config).generate(image) == expected
    assert_all_but_equal(build_generator(model, Mode.AO, config, CPU).generate(image), expected)


@pytest.mark.parametrize(("name", "crop_layers"), CASES)
def test_ao_finds_what_baseline_finds(
    small_model: SAM2Base, demo_config: GeneratorConfig, name: str, crop_layers: int
) -> None:
    config = replace(demo_config, points_per_side=POINTS_PER_SIDE[crop_layers], crop_n_layers=crop_layers)
    assert_ao_finds_what_baseline_finds(small_model, config, IMAGES[name](), least=FEWER.get(name, 3))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_ao_finds_what_baseline_finds_with_the_model_that_ships(
    demo_model: SAM2Base, demo_config: GeneratorConfig, name: str
) -> None:
    config = replace(demo_config, points_per_side=3)
    assert_ao_finds_what_baseline_finds(demo_model, config, photograph(name), least=3)


@pytest.mark.slow
@pytest.mark.parametrize(("points_per_side", "crop_layers"), [(8, 0), (4, 1)])
@pytest.mark.parametrize("name", IMAGES)
def test_ao_finds_what_baseline_finds_with_more_points(
    demo_model: SAM2Base, demo_config: GeneratorConfig, name: str, points_per_side: int, crop_layers: int
) -> None:
    """With the model that ships, and crops: the two tests before share this between them."""
    config = replace(demo_config, points_per_side=points_per_side, crop_n_layers=crop_layers)
    image = photograph(name) if name in PHOTOGRAPHS else IMAGES[name]()
    assert_ao_finds_what_baseline_finds(demo_model, config, image, least=FEWER.get(name, 3))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)], ids=str)
def test_a_picture_one_pixel_wide_of_one_thing_has_one_mask(
    demo_model: SAM2Base, demo_config: GeneratorConfig, size: tuple[int, int]
) -> None:
    """Four points find it, each three times."""
    config = replace(demo_config, points_per_side=2)
    image = np.full((*size, 3), 120, np.uint8)
    expected, records = (
        build_generator(demo_model, mode, config, CPU).generate(image) for mode in (Mode.BASELINE, Mode.AO)
    )
    assert_all_but_equal(records, expected)
    (record,) = records
    assert record["area"] == size[0] * size[1]
    assert record["bbox"] == expected[0]["bbox"] == [0, 0, size[1] - 1, size[0] - 1]


@pytest.mark.parametrize("mode", [Mode.BASELINE, Mode.AO])  # of compiled modes, it is in test_fast.py
@pytest.mark.parametrize("crop_layers", [0, 1])
def test_nothing_found(small_model: SAM2Base, demo_config: GeneratorConfig, mode: Mode, crop_layers: int) -> None:
    config = replace(demo_config, points_per_side=2, crop_n_layers=crop_layers, pred_iou_thresh=1.0)
    assert build_generator(small_model, mode, config, CPU).generate(drawn_image(40, 50)) == []


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.0, 0.9), (0.65, 0.0)])
def test_thresholds_of_zero_keep_everything(
    small_model: SAM2Base, demo_config: GeneratorConfig, thresholds: tuple[float, float]
) -> None:
    pred_iou, stability = thresholds
    config = replace(demo_config, points_per_side=4, pred_iou_thresh=pred_iou, stability_score_thresh=stability)
    image = drawn_image(60, 80)
    expected = build_generator(small_model, Mode.BASELINE, config, CPU).generate(image)
    records = sam2_decoder_generator(small_model, config).generate(image)
    assert len(expected) > 0
    # an empty mask has a stability of NaN, which equals nothing, so compare as text
    assert list(map(repr, records)) == list(map(repr, expected))


def test_batches_and_memory_do_not_change_the_answer(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    config = replace(demo_config, points_per_side=6)
    image = photograph("groceries")
    answers = [
        build_generator(small_model, Mode.AO, replace(config, **options), CPU).generate(image)
        for options in ({"points_per_batch": 1}, {"points_per_batch": 36, "mask_memory_mib": 1}, {})
    ]
    assert len(answers[0]) > 0
    assert_all_but_equal(answers[1], answers[0])
    assert_all_but_equal(answers[2], answers[0])


@pytest.mark.parametrize("crop_layers", [0, 1])
def test_images_encoded_together_are_segmented_as_alone(
    small_model: SAM2Base, demo_config: GeneratorConfig, crop_layers: int
) -> None:
    config = replace(demo_config, points_per_side=3, crop_n_layers=crop_layers)
    generator = build_generator(small_model, Mode.AO, config, CPU, batch_size=3)
    assert generator.batch_size == 3
    images = [IMAGES[name]() for name in ("groceries", "17x900", "dog")[crop_layers:]]  # crops take long
    together = [
        generator.segment(image, features)() for image, features in zip(images, generator.encode(images), strict=True)
    ]
    assert sum(map(len, together)) >= 5
    for records, image in zip(together, images, strict=True):
        assert_all_but_equal(records, generator.generate(image))


def test_crops_without_a_pixel_are_passed_over() -> None:
    config = GeneratorConfig(crop_n_layers=1)
    assert [crop.box for crop in crops_of((1, 1), config)] == [[0, 0, 1, 1], [0, 0, 1, 1]]
    assert len(crops_of((100, 100), config)) == 5


@pytest.mark.gpu
def test_ao_on_cuda_finds_what_baseline_finds(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    cuda = torch.device("cuda")
    model = deepcopy(demo_model).to(cuda)
    for name in PHOTOGRAPHS:
        image: NDArray[np.uint8] = IMAGES[name]()
        answers = [build_generator(model, mode, demo_config, cuda).generate(image) for mode in (Mode.BASELINE, Mode.AO)]
        sides = [parse_masks(orjson.dumps(rles_by_name(records))) for records in answers]
        agreement = compare_images(*sides)
        assert agreement.reference_count == agreement.candidate_count >= 20
        assert agreement.score >= 0.99999
        assert agreement.matched.min() >= 0.999


def test_logits_that_are_no_numbers_are_an_error(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    config = replace(demo_config, points_per_side=2, pred_iou_thresh=0.0)
    generator = build_generator(small_model, Mode.AO, config, CPU)
    assert isinstance(generator, MaskGenerator)
    decoder = generator.stages.decoder

    def predict_masks(attended: Any, kept: Kept) -> torch.Tensor:
        logits = decoder.predict_masks(attended, kept)
        logits[-1, -1, -1] = float("nan")
        return logits

    broken = SimpleNamespace(at_once=None, prepare=decoder.prepare, attend=decoder.attend, predict_masks=predict_masks)
    generator.stages = replace(generator.stages, decoder=broken)
    with pytest.raises(ValueError, match="NaN or infinity"):
        generator.segment(drawn_image(40, 60))


def test_candidates_are_chosen_with_all_that_they_have() -> None:
    logits = torch.arange(5.0)[:, None, None].expand(5, 2, 3).contiguous()
    numbers = torch.arange(5)
    boxes, points = numbers[:, None] + torch.arange(4), 10 + numbers[:, None] + torch.arange(2.0)
    every = Candidates(logits, tabulate(boxes, 20.0 + numbers, points, 30.0 + numbers, crop=7))
    some = every.select(torch.tensor([4, 0, 3])).select(torch.tensor([0, 2]))
    assert (len(some), some.logits[:, 0, 0].tolist()) == (2, [4, 3])
    assert some.boxes.tolist() == [[4, 5, 6, 7], [3, 4, 5, 6]]
    assert (some.predicted_iou.tolist(), some.stability.tolist()) == ([24, 23], [34, 33])
    assert (some.points.tolist(), some.crop.tolist()) == ([[14, 15], [13, 14]], [7, 7])
    assert Candidates.concatenate([some]) is some
    joined = Candidates.concatenate([every, some])
    assert joined.logits[:, 0, 0].tolist() == joined.boxes[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 3]


def test_points_per_batch_of_fast_on_a_gpu() -> None:
    """All of them, unless their image tokens would fill the GPU."""
    cuda = torch.device("cuda")
    for side, batch in ((1, 1), (32, 1024), (64, 4096), (256, 4096)):
        assert fill_in(GeneratorConfig(points_per_side=side), Mode.FAST, cuda).points_per_batch == batch
    assert fill_in(GeneratorConfig(points_per_batch=9), Mode.FAST, cuda).points_per_batch == 9


def test_convolutions_are_float32_in_every_mode(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    """What torch would do by itself on a GPU is TF32. A CPU has neither, but the same switch."""
    assert torch.backends.cudnn.allow_tf32
    seen = []
    encoder = small_model.image_encoder
    hook = encoder.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    try:
        for mode in (Mode.BASELINE, Mode.AO):
            generator = build_generator(small_model, mode, replace(demo_config, points_per_side=2), CPU)
            generator.segment(drawn_image(40, 60))
            generator.encode([drawn_image(40, 60)])
    finally:
        hook.remove()
    assert seen == [False, False, False]  # baseline encodes nothing beforehand
    assert torch.backends.cudnn.allow_tf32
