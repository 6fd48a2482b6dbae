"""The one place that knows what each mode is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.baseline import BaselineGenerator
from sam2_amg.compiled import compile_units
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.encoder import encode
from sam2_amg.errors import StartupError
from sam2_amg.fixed_decoder import FixedDecoder, FixedEncoder
from sam2_amg.folded_decoder import FoldedDecoder
from sam2_amg.image import Preprocess, PreprocessOnDevice
from sam2_amg.image_side import PlainImageSide
from sam2_amg.kernels import measure as measure_kernel
from sam2_amg.kernels import rle as rle_kernel
from sam2_amg.pipeline import MaskGenerator, Stages
from sam2_amg.prompts import Crop
from sam2_amg.records import Generator
from sam2_amg.reference import masks, rle
from sam2_amg.reference.nms import suppress
from sam2_amg.split_image_side import SplitImageSide
from sam2_amg.split_linear import split_linears
from sam2_amg.units import plain_units, shapes_of
from sam2_amg.upscaling import ConvolvedUpscaling, LinearUpscaling, Upscaling

# On a CPU few points at a time stay in cache, and buffers of this size are reused instead of mapped anew.
_POINTS_PER_BATCH = {"cpu": 8, "cuda": 64}
_CPU_MASK_MEMORY_MIB = 32
# The fixed shapes of units: points that ask the image at a time, and points whose masks are made. On a GPU many points
# spare launches, and few upscaled ones memory.
_UNIT_POINTS = {"cpu": (8, 8), "cuda": (128, 64)}
_BASELINE_POINTS_PER_BATCH = 64  # sam2's default


def fill_in(config: GeneratorConfig, mode: Mode, device: torch.device) -> GeneratorConfig:
    """`config` with the defaults that depend on mode and device. Raises StartupError for what they do not know."""
    if mode is Mode.BASELINE:
        return replace(config, points_per_batch=config.points_per_batch or _BASELINE_POINTS_PER_BATCH)
    every = config.points_per_side**2 if mode is Mode.FAST and device.type == "cuda" else None
    config = replace(config, points_per_batch=config.points_per_batch or every or _POINTS_PER_BATCH[device.type])
    if device.type == "cpu":
        return replace(config, mask_memory_mib=config.mask_memory_mib or _CPU_MASK_MEMORY_MIB)
    if config.mask_memory_mib is not None:
        raise StartupError("--mask_memory_mib is for --device cpu; on cuda no upsampled mask is stored: leave it out")
    return config


def mask_stages(config: GeneratorConfig, device: torch.device) -> dict[str, Any]:
    """What follows the decoder: kernels that store no upsampled mask on a GPU, plain torch in bounded memory on a CPU.

    `config` has its defaults filled in.
    """
    if device.type == "cuda":
        return {"measure": measure_kernel.measure, "suppress": suppress, "encode_rle": rle_kernel.encode_logits}
    assert config.mask_memory_mib is not None
    memory = config.mask_memory_mib << 20
    return {
        "measure": partial(masks.measure, memory=memory),
        "suppress": suppress,
        "encode_rle": partial(rle.encode_logits, memory=memory),
    }


def _upscaling(model: SAM2Base, device: torch.device) -> Upscaling:
    """The form that is quick on a CPU, or that agrees with baseline on a GPU."""
    return (LinearUpscaling if device.type == "cpu" else ConvolvedUpscaling)(model.sam_mask_decoder)


def ao_stages(model: SAM2Base, config: GeneratorConfig, device: torch.device) -> Stages:
    """Mode ao: float32, sam2's own preprocessing and encoder, the folded decoder."""
    return Stages(
        preprocess=Preprocess(model.image_size, device),
        encode=partial(encode, model),
        decoder=FoldedDecoder(model, _upscaling(model, device)),
        **mask_stages(config, device),
    )


def fast_stages(model: SAM2Base, config: GeneratorConfig, device: torch.device) -> Stages:
    """Mode fast: the same network in compiled units of fixed shapes; on a GPU, in CUDA graphs.

    There the encoder's linear layers, where nine tenths of its time go, and the decoder's image side become split
    products of float16; `model` is changed by that. Compiles; raises StartupError where it cannot.
    """
    image_side = SplitImageSide if device.type == "cuda" else PlainImageSide
    decoder = FoldedDecoder(model, _upscaling(model, device), image_side)
    if device.type == "cuda":
        split_linears(model.image_encoder)
    points, upscaled = _UNIT_POINTS[device.type]
    units = plain_units(model, decoder)
    units = compile_units(units, shapes_of(units, model.image_size, points, upscaled), device)
    preprocess = PreprocessOnDevice if device.type == "cuda" else Preprocess
    storage = torch.float16 if device.type == "cuda" else torch.float32
    after = mask_stages(config, device)
    side = model.image_size // 4
    some = torch.zeros(1, side, side, device=device)
    after["measure"](some, (side, side), 0.0, 1.0)  # kernels compile when they are first called
    after["encode_rle"](some, Crop(0, 0, side, side, layer=0), (side, side), 0.0)
    return Stages(
        preprocess=preprocess(model.image_size, device),
        encode=FixedEncoder(units),
        decoder=FixedDecoder(units, points, upscaled, storage),
        **after,
    )


_BUILDERS: dict[Mode, Callable[[SAM2Base, GeneratorConfig, torch.device], Stages]] = {
    Mode.AO: ao_stages,
    Mode.FAST: fast_stages,
}


def build_stages(model: SAM2Base, mode: Mode, config: GeneratorConfig, device: torch.device) -> Stages:
    """The stages of any mode but baseline, which is sam2's own; `config` has its defaults filled in."""
    with torch.inference_mode():
        return _BUILDERS[mode](model, config, device)


def build_generator(model: SAM2Base, mode: Mode, config: GeneratorConfig, device: torch.device) -> Generator:
    """The generator of a mode, around a model that is already on `device`."""
    config = fill_in(config, mode, device)
    if mode is Mode.BASELINE:
        return BaselineGenerator(model, config)
    return MaskGenerator(build_stages(model, mode, config, device), config, model.image_size, device)
