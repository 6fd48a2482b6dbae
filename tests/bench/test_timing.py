"""The harness's clocks: stages in stages, and other people's generators, which answer the same with clocks in them."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace

import orjson
import pytest
import torch
from helpers import CPU, drawn_image, load_demo_model, photograph
from sam2 import automatic_mask_generator
from sam2.modeling.sam2_base import SAM2Base

from bench.harness.case import Case
from bench.harness.peers import TorchaoGenerator
from bench.harness.planted import plant
from bench.harness.systems import SYSTEMS, build_baseline
from bench.harness.timing import StageClock, time_methods
from bench.harness.weights import seeded_model
from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator

STAGES = {"preprocess", "encode", "decoder", "measure", "nms", "rle"}


def test_the_clock_adds_up_by_stage_and_only_when_on() -> None:
    clock = StageClock(CPU)
    sleep = clock.around("sleep", time.sleep)
    sleep(0.01)
    assert clock.read() == {}
    clock.on = True
    for _ in range(3):
        sleep(0.01)
    assert 30 <= clock.read()["sleep"] < 3000
    assert clock.read() == {}


def test_a_stage_in_a_stage_is_taken_off_it() -> None:
    clock = StageClock(CPU)
    clock.on = True
    started = time.perf_counter()
    with clock.stage("outer"):
        time.sleep(0.02)
        for _ in range(2):
            with clock.stage("inner"):
                time.sleep(0.1)
        time.sleep(0.02)
    total = (time.perf_counter() - started) * 1e3
    times = clock.read()
    assert times["inner"] >= 200
    assert times["outer"] >= 40
    assert sum(times.values()) <= total


def test_a_stage_that_fails_ends() -> None:
    clock = StageClock(CPU)
    clock.on = True
    with pytest.raises(ZeroDivisionError), clock.stage("outer"), clock.stage("inner"):
        1 / 0  # noqa: B018
    assert set(clock.read()) == {"outer", "inner"}
    time.sleep(0.05)  # belongs to nothing
    with clock.stage("next"):
        pass
    times = clock.read()
    assert set(times) == {"next"}
    assert times["next"] < 50


@pytest.mark.parametrize("mode", [Mode.BASELINE, Mode.AO])
def test_hardly_anything_is_left_unclocked_and_the_answer_stays(
    mode: Mode, demo_model: SAM2Base, demo_config: GeneratorConfig
) -> None:
    image = drawn_image(90, 120)
    config = replace(demo_config, points_per_side=4)
    expected = build_generator(demo_model, mode, config, CPU).generate(image)
    assert len(expected) >= 2
    functions = dict(vars(automatic_mask_generator))
    clock = StageClock(CPU)
    generator = SYSTEMS[mode.value].build(Case(deepcopy(demo_model), "demo", config, CPU, clock, None))
    assert generator.generate(image) == expected
    assert clock.read() == {}
    clock.on = True
    clocked = []
    while max(clocked, default=0) < 0.9 and len(clocked) < 4:  # one alone may tell of what else the machine does
        started = time.perf_counter()
        assert generator.generate(image) == expected
        total = (time.perf_counter() - started) * 1e3
        times = clock.read()
        assert set(times) == STAGES
        clocked.append(sum(times.values()) / total)
    assert 0.9 <= max(clocked) <= 1
    assert vars(automatic_mask_generator) == functions


def test_torchaos_generator_has_what_is_clocked() -> None:
    clock = StageClock(CPU)
    case = Case(seeded_model("tiny", CPU), "tiny", GeneratorConfig(points_per_side=2), CPU, clock, None)
    generator = TorchaoGenerator(case, points_per_batch=4).generator
    clock.on = True
    predictor = generator.predictor
    # what the trunk finds takes it seconds, and nobody looks at it
    found = [torch.zeros(1, 96 * scale, 256 // scale, 256 // scale) for scale in (1, 2, 4, 8)]
    predictor.model.image_encoder.trunk.forward = lambda _image: found
    predictor.set_image(drawn_image(60, 80))
    assert set(clock.read()) == {"preprocess", "encode"}
    features, positions = predictor._features, predictor.model.sam_prompt_encoder.get_dense_pe()
    points, labels = torch.rand(4, 1, 2) * 1024, torch.ones(4, 1, dtype=torch.int32)
    with torch.inference_mode():
        predictor._predict_masks(features["high_res_feats"], features["image_embed"], positions, points, labels)
    assert set(clock.read()) == {"decoder"}


@pytest.mark.gpu
def test_torchaos_stages_on_a_gpu() -> None:
    device = torch.device("cuda")
    clock = StageClock(device)
    model = seeded_model("tiny", device)
    planted = plant(8, model.image_size // 4, device)
    case = Case(model, "tiny", GeneratorConfig(points_per_side=8), device, clock, planted)
    generator = TorchaoGenerator(case, points_per_batch=16)
    expected = generator.generate(drawn_image(300, 400))
    clock.on = True
    assert generator.generate(drawn_image(300, 400)) == expected
    assert set(clock.read()) == STAGES


@pytest.mark.gpu
def test_torchaos_masks_are_those_of_baseline() -> None:
    """In float32, with the demo model, whose feature maps are half as large; and where there is no mask to find."""
    device = torch.device("cuda")
    config = GeneratorConfig(points_per_side=8)
    case = Case(load_demo_model(device), "demo", config, device, StageClock(device), None)
    peer, baseline = TorchaoGenerator(case, points_per_batch=16), build_baseline(case)
    found, expected = (generator.generate(photograph("dog")) for generator in (peer, baseline))
    assert len(found) == len(expected) > 0
    answers = (parse_masks(orjson.dumps(rles_by_name(records))) for records in (found, expected))
    assert compare_images(*answers).score > 0.9999
    strict = replace(case, config=replace(config, pred_iou_thresh=1.0))
    assert TorchaoGenerator(strict, points_per_batch=16).generate(photograph("dog")) == []


def test_a_method_that_is_not_there_is_noticed() -> None:
    with pytest.raises(AttributeError, match="no_such_method"):
        time_methods(StageClock(CPU), [(object(), "no_such_method", "decoder")])
