"""Peers: other people's generators around the same weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

from bench.harness.case import Case
from bench.harness.planted import PlantingHooks
from bench.harness.timing import StageClock, time_sam2_like
from sam2_amg.config import Mode
from sam2_amg.modes.build import fill_in
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.base import Generator, MaskRecord


class TorchaoGenerator(Generator):
    """torchao's former SAM 2 generator (torchao._models.sam2), eager float32, or compiled float16 ("furious")."""

    def __init__(self, case: Case, points_per_batch: int, furious: bool = False) -> None:
        """Official sizes only. Needs a CUDA device: torchao pins memory."""
        from torchao._models.sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        self.config = replace(fill_in(case.config, Mode.BASELINE, case.device), points_per_batch=points_per_batch)
        model = torchao_model(case.model_type)
        model.load_state_dict(case.model.state_dict())
        model.requires_grad_(False).eval().to(case.device)
        names = ("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh")
        options = {name: getattr(self.config, name) for name in names}
        self.generator = SAM2AutomaticMaskGenerator(model, output_mode="uncompressed_rle", **options)
        if furious:
            _make_furious(self.generator.predictor)
        if case.planted is not None:
            PlantingHooks(case.planted).attach_to_torchao(self.generator.predictor)
        _time(case.clock, self.generator)

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]. Convolutions are float32, as in baseline, where the peer is."""
        with float32_convolutions():
            return self.generator.generate(image)


def torchao_model(model_type: str) -> Any:
    """A model of torchao's classes. torchao ships no configurations: sam2's serve, their targets renamed."""
    config = (files("sam2") / MODEL_TYPES[model_type].config).read_text()
    return instantiate(OmegaConf.create(config.replace(": sam2.", ": torchao._models.sam2.")).model, _recursive_=True)


def _time(clock: StageClock, generator: Any) -> None:
    """Clocks around what is compiled, not in it."""
    functions = {"_mask_to_rle_pytorch_2_0": "rle", "_mask_to_rle_pytorch_2_1": "rle"}
    methods = ((generator.predictor, "_predict_masks", "decoder"),)
    time_sam2_like(clock, generator, sys.modules[type(generator).__module__], methods, functions)


def _make_furious(predictor: Any) -> None:
    """float16 encoder and decoder, preprocessing on the GPU, both parts compiled with autotuning."""
    model = predictor.model
    model.image_encoder.half()
    model.sam_mask_decoder.half()
    model.sam_mask_decoder._src_dtype = predictor._image_dtype = torch.float16
    predictor._transforms_device = predictor.device
    compiled = partial(torch.compile, mode="max-autotune", fullgraph=True, dynamic=False)
    model.image_encoder = compiled(model.image_encoder)
    predictor._predict_masks = compiled(predictor._predict_masks)
