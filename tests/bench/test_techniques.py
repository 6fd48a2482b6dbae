"""Furious with each of its techniques switched off: the same masks, or nearly."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import orjson
import pytest
import torch
from helpers import CPU, DEVICE, drawn_image, photograph
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from small_model import small_demo_model

from bench.techniques import Form, Parts, forms, main, time_forms
from sam2_amg.agreement.masks import Masks, compare_images, parse_masks
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder
from sam2_amg.compilation.subgraphs import Encode
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.kernels import mask_stats, rle
from sam2_amg.modes.ao import ao_stages
from sam2_amg.modes.build import fill_in
from sam2_amg.modes.fast import fast_subgraphs
from sam2_amg.modes.furious import furious_subgraphs
from sam2_amg.network.encoder import PlainEncoder
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.pipeline.generator import MaskGenerator, Stages
from sam2_amg.pipeline.preprocess import PreprocessOnDevice


class Furious:
    """Furious' stages and forms around plain subgraphs; kernels are interpreted where there is no GPU."""

    def __init__(self, model: SAM2Base, config: GeneratorConfig) -> None:
        self.config = fill_in(config, Mode.AO, DEVICE)
        self.size = model.image_size
        furious, fast, ao = (deepcopy(model).to(DEVICE) for _ in range(3))
        self.ao = ao_stages(ao, self.config, DEVICE)
        # quicker than kernels that are interpreted
        encode = Encode(PlainEncoder(deepcopy(model).to(DEVICE))).eval()
        subgraphs = replace(furious_subgraphs(furious, torch.device("cuda")), encode=encode)
        fp16x3 = replace(fast_subgraphs(fast, torch.device("cuda")), encode=encode)
        upscaling = FusedUpscaling(furious.sam_mask_decoder, fp16x3=False)
        fp16x3_upscaling = FusedUpscaling(fast.sam_mask_decoder, fp16x3=True)
        self.stages = replace(
            self.ao,
            preprocess=PreprocessOnDevice(self.size, DEVICE),
            encode=StaticEncoder(subgraphs),
            decoder=StaticDecoder(subgraphs, 1, upscaling.masks, upscaling.dtype),
            mask_stats=mask_stats.mask_stats,
            run_boundaries=rle.run_boundaries,
        )
        self.parts = Parts(subgraphs, 1, subgraphs, 2, subgraphs, fp16x3, 1, upscaling, fp16x3_upscaling)

    def without_each(self, stages: Stages) -> list[Form]:
        return forms(stages, self.parts, self.size, DEVICE)

    def answer(self, stages: Stages, image: NDArray[np.uint8]) -> Masks:
        records = MaskGenerator(stages, self.config, self.size, DEVICE).generate(image)
        return parse_masks(orjson.dumps(rles_by_name(records)))


ONE_POINT = GeneratorConfig(points_per_side=1, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)


@torch.inference_mode()
@pytest.mark.slow
def test_every_form_finds_what_ao_finds(demo_model: SAM2Base) -> None:
    """Interpreted kernels take long: all that a form has of furious is what it switches, or its neighbours."""
    y, x = np.mgrid[:24, :32]
    image = np.where(np.hypot(y - 12, x - 16)[..., None] < 8, (210, 60, 40), (60, 90, 140)).astype(np.uint8)
    furious = Furious(demo_model, replace(ONE_POINT, pred_iou_thresh=0.5))
    expected = furious.answer(furious.ao, image)
    assert expected.areas.tolist() == [pytest.approx(math.pi * 8**2, rel=0.05), 24 * 32]
    measured = replace(furious.ao, mask_stats=mask_stats.mask_stats, run_boundaries=rle.run_boundaries)
    seen = set()
    for base in (furious.ao, measured):
        for form in furious.without_each(base):
            switched = {name for name, stage in vars(base).items() if getattr(form.stages, name) is not stage}
            assert switched, form.technique
            if (base is measured) == (switched <= {"mask_stats", "run_boundaries"}):
                seen.add(form.technique)
                assert compare_images(expected, furious.answer(form.stages, image)).score > 0.98, form.technique
    assert len(seen) == 8


@pytest.mark.slow
@torch.inference_mode()
def test_every_form_of_all_of_furious_finds_the_same(demo_model: SAM2Base) -> None:
    furious = Furious(demo_model, ONE_POINT)
    image = photograph("dog")[::20, ::20].copy()
    expected = furious.answer(furious.stages, image)
    assert len(expected.areas) == 3
    every = furious.without_each(furious.stages)
    assert len({form.technique for form in every}) == len(every) == 8
    for form in every:
        assert compare_images(expected, furious.answer(form.stages, image)).score > 0.98, form.technique


def test_every_form_has_its_turn_in_every_round() -> None:
    config, model = fill_in(ONE_POINT, Mode.AO, CPU), small_demo_model()
    generator = MaskGenerator(ao_stages(model, config, CPU), config, model.image_size, CPU)
    times = time_forms({"one": generator, "other": generator}, drawn_image(20, 30), 3)
    assert {name: len(values) for name, values in times.items()} == {"one": 3, "other": 3}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_it_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "no CUDA GPU here" in capsys.readouterr().err
