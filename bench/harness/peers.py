"""Peers: other people's generators around the same weights."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

from bench.harness.case import Case
from bench.harness.planted import PlantingHooks
from bench.harness.timing import StageClock, time_sam2_like
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import fill_in
from sam2_amg.network.checkpoints import configuration_of
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.base import Generator, MaskRecord

_NO_MASK = "torch.cat(): expected a non-empty list of Tensors"  # what torchao.filter says of no mask at all
Numbers = Literal["float32", "TF32", "float16"]  # what products are made of


class TorchaoGenerator(Generator):
    """torchao's former SAM 2 generator (torchao._models.sam2), eager, or compiled as its server did in "furious".

    With float32, convolutions are float32, too, as in baseline. With TF32, products and convolutions are TF32. With
    float16, so are the image encoder and the mask decoder.
    """

    def __init__(self, case: Case, points_per_batch: int, numbers: Numbers = "float32", compiled: bool = False) -> None:
        """Needs a CUDA device: torchao pins memory."""
        from torchao._models.sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        self.config = replace(fill_in(case.config, Mode.BASELINE, case.device), points_per_batch=points_per_batch)
        self.numbers = numbers
        model = torchao_model(case.model_type)
        model.load_state_dict(case.model.state_dict())
        model.requires_grad_(False).eval().to(case.device)
        names = ("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh")
        options = {name: getattr(self.config, name) for name in names}
        self.generator = SAM2AutomaticMaskGenerator(model, output_mode="uncompressed_rle", **options)
        # torchao writes down the feature maps' sides of a 1024 x 1024 input
        self.generator.predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
        if numbers == "TF32":
            torch.set_float32_matmul_precision("high")
        if numbers == "float16":
            _use_float16(self.generator.predictor)
        if compiled:
            _compile(self.generator.predictor)
        if case.planted is not None:
            PlantingHooks(case.planted).attach_to_torchao(self.generator.predictor)
        _time(case.clock, self.generator)

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]; none where torchao fails because there is none to filter.

        It has one configuration, so `config` must be None.
        """
        assert config is None
        try:
            with float32_convolutions() if self.numbers == "float32" else nullcontext():
                return self.generator.generate(image)
        except ValueError as error:
            if str(error) == _NO_MASK:
                return []
            raise


def torchao_model(model_type: str) -> Any:
    """A model of torchao's classes. torchao ships no configurations: sam2's serve, their targets renamed."""
    base, overrides = configuration_of(MODEL_TYPES[model_type])
    config = OmegaConf.to_yaml(compose(config_name=base, overrides=overrides), resolve=True)
    return instantiate(OmegaConf.create(config.replace(": sam2.", ": torchao._models.sam2.")).model, _recursive_=True)


def _time(clock: StageClock, generator: Any) -> None:
    """Clocks around what is compiled, not in it."""
    functions = {"_mask_to_rle_pytorch_2_0": "rle", "_mask_to_rle_pytorch_2_1": "rle"}
    methods = ((generator.predictor, "_predict_masks", "decoder"),)
    time_sam2_like(clock, generator, sys.modules[type(generator).__module__], methods, functions)


def _use_float16(predictor: Any) -> None:
    predictor.model.image_encoder.half()
    predictor.model.sam_mask_decoder.half()
    predictor.model.sam_mask_decoder._src_dtype = predictor._image_dtype = torch.float16


def _compile(predictor: Any) -> None:
    """Preprocessing on the GPU, encoder and decoder compiled with autotuning."""
    predictor._transforms_device = predictor.device
    compiled = partial(torch.compile, mode="max-autotune", fullgraph=True, dynamic=False)
    predictor.model.image_encoder = compiled(predictor.model.image_encoder)
    predictor._predict_masks = compiled(predictor._predict_masks)
