"""The one place that knows what each mode is made of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.baseline import BaselineGenerator
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.encoder import encode
from sam2_amg.folded_decoder import FoldedDecoder
from sam2_amg.image import Preprocess
from sam2_amg.pipeline import MaskGenerator, Stages
from sam2_amg.records import Generator
from sam2_amg.reference.masks import measure
from sam2_amg.reference.nms import suppress
from sam2_amg.reference.rle import encode_rle

# On a CPU few points at a time stay in cache, and buffers of this size are reused instead of mapped anew.
_POINTS_PER_BATCH = {"cpu": 8, "cuda": 64}
_MASK_MEMORY_MIB = {"cpu": 32, "cuda": 1024}
_BASELINE_POINTS_PER_BATCH = 64  # sam2's default


def fill_in(config: GeneratorConfig, mode: Mode, device: torch.device) -> GeneratorConfig:
    """`config` with the defaults that depend on mode and device."""
    if mode is Mode.BASELINE:
        return replace(config, points_per_batch=config.points_per_batch or _BASELINE_POINTS_PER_BATCH)
    return replace(
        config,
        points_per_batch=config.points_per_batch or _POINTS_PER_BATCH[device.type],
        mask_memory_mib=config.mask_memory_mib or _MASK_MEMORY_MIB[device.type],
    )


def ao_stages(model: SAM2Base, device: torch.device) -> Stages:
    """Mode ao: float32, sam2's own preprocessing and encoder, the folded decoder."""
    return Stages(
        preprocess=Preprocess(model.image_size, device),
        encode=partial(encode, model),
        decoder=FoldedDecoder(model),
        measure=measure,
        suppress=suppress,
        encode_rle=encode_rle,
    )


def build_generator(model: SAM2Base, mode: Mode, config: GeneratorConfig, device: torch.device) -> Generator:
    """The generator of a mode, around a model that is already on `device`."""
    config = fill_in(config, mode, device)
    with torch.inference_mode():
        if mode is Mode.BASELINE:
            return BaselineGenerator(model, config)
        return MaskGenerator(ao_stages(model, device), config, model.image_size, device)
