"""Furious with each of its techniques switched off: the same masks, or nearly."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import orjson
import torch
from helpers import CPU, DEVICE, ROOT, drawn_image, photograph
from sam2.modeling.sam2_base import SAM2Base

from bench.report.tables import techniques_markdown
from bench.techniques import Parts, forms, time_forms
from sam2_amg.agreement import Masks, compare_images, parse_masks
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
from sam2_amg.server.app import rles_by_name


@torch.inference_mode()
def test_every_form_finds_the_same(demo_model: SAM2Base) -> None:
    """Plain subgraphs stand for compiled ones, and kernels are interpreted where there is no GPU."""
    config = fill_in(
        GeneratorConfig(points_per_side=1, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0),
        Mode.AO,
        DEVICE,
    )
    furious, fast = deepcopy(demo_model).to(DEVICE), deepcopy(demo_model).to(DEVICE)
    encode = Encode(PlainEncoder(deepcopy(demo_model).to(DEVICE))).eval()  # quicker than kernels that are interpreted
    subgraphs = replace(furious_subgraphs(furious, torch.device("cuda")), encode=encode)
    fp16x3 = replace(fast_subgraphs(fast, torch.device("cuda")), encode=encode)
    upscaling = FusedUpscaling(furious.sam_mask_decoder, fp16x3=False)
    fp16x3_upscaling = FusedUpscaling(fast.sam_mask_decoder, fp16x3=True)
    stages = replace(
        ao_stages(demo_model, config, DEVICE),
        encode=StaticEncoder(subgraphs),
        decoder=StaticDecoder(subgraphs, 2, upscaling.masks),
        mask_stats=mask_stats.mask_stats,
        run_boundaries=rle.run_boundaries,
    )
    parts = Parts(subgraphs, 2, subgraphs, 1, subgraphs, fp16x3, 1, upscaling, fp16x3_upscaling)
    image = photograph("dog")[::20, ::20].copy()

    def answer(stages: Stages) -> Masks:
        records = MaskGenerator(stages, config, demo_model.image_size, DEVICE).generate(image)
        return parse_masks(orjson.dumps(rles_by_name(records)))

    expected = answer(stages)
    assert len(expected.areas) == 3
    every = forms(stages, parts, demo_model.image_size, DEVICE)
    assert len({form.technique for form in every}) == len(every) == 8
    for form in every:
        assert compare_images(expected, answer(form.stages)).score > 0.98, form.technique


def test_every_form_has_its_turn_in_every_round(demo_model: SAM2Base, few_points: GeneratorConfig) -> None:
    config = fill_in(replace(few_points, points_per_side=1), Mode.AO, CPU)
    generator = MaskGenerator(ao_stages(demo_model, config, CPU), config, demo_model.image_size, CPU)
    times = time_forms({"one": generator, "other": generator}, drawn_image(20, 30), 3)
    assert {name: len(values) for name, values in times.items()} == {"one": 3, "other": 3}


def test_the_page_says_what_each_saves() -> None:
    rows = [
        {"technique": "furious", "instead": "", "median_ms": 21.0, "ms": [21.0]},
        {"technique": "quick", "instead": "slow", "median_ms": 30.25, "ms": [30.25]},
    ]
    host = {"device": "a GPU", "torch": "2"}
    result = {"model": "large", "command": "c", "machine": host, "weights": "seeded", "image": "i", "rows": rows}
    assert "| quick | slow | 30.2 | 9.2 |" in techniques_markdown(json.loads(json.dumps(result)))


def test_it_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        return
    ran = subprocess.run(
        [sys.executable, "-m", "bench.techniques"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "no CUDA GPU here" in ran.stderr
