"""Planted decoder outputs."""

from __future__ import annotations

import torch
from helpers import CPU, drawn_image
from small_model import small_demo_model

from bench.harness.case import Case
from bench.harness.planted import plant
from bench.harness.systems import SYSTEMS
from bench.harness.timing import StageClock
from sam2_amg.config import GeneratorConfig


def test_planted_outputs_are_reproducible_and_realistic() -> None:
    planted = plant(8, 64, CPU)
    assert torch.equal(planted.logits, plant(8, 64, CPU).logits)
    assert planted.logits.shape == (64, 3, 64, 64)
    passing = planted.predicted_iou > 0.8
    assert 0.1 < passing.float().mean() < 0.4
    assert (planted.logits[passing] > 5).flatten(1).any(1).all()  # every mask that passes has an inside


def test_baseline_and_ao_post_process_the_same_planted_masks() -> None:
    model = small_demo_model()
    config = GeneratorConfig(points_per_side=6, stability_score_thresh=0.5)
    planted = plant(6, model.image_size // 4, CPU)
    image = drawn_image(120, 90)
    answers = []
    for name in ("ao", "baseline"):  # baseline's hooks stay on the model
        case = Case(model, "demo", config, CPU, StageClock(CPU), planted)
        generator = SYSTEMS[name].build(case)
        answers.append([generator.generate(image) for _ in range(2)])
        assert answers[-1][0] == answers[-1][1]
    assert answers[0] == answers[1]
    assert len(answers[0][0]) >= 4
