"""Builds the generator of a mode. Only this file branches on the mode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.compilation.jit import compile_subgraphs
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.modes import compiled, fast, furious
from sam2_amg.modes.ao import ao_stages
from sam2_amg.modes.baseline import BaselineGenerator
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator, Stages

logger = logging.getLogger(__name__)

MakeSubgraphs = Callable[[SAM2Base, Mode, SubgraphShapes, torch.device], Subgraphs]

_RECIPES = {Mode.FAST: fast.RECIPE, Mode.FURIOUS: furious.RECIPE}
# On a CPU, the tensors of a few points fit in cache, and the allocator reuses buffers of this size.
_POINTS_PER_BATCH = {"cpu": 8, "cuda": 64}
_CPU_MASK_MEMORY_MIB = 32
_MOST_POINTS_PER_BATCH = 4096  # their masks take 3.2 GB on a GPU if all are kept
_GPU_WORKERS = 2  # threads that keep a GPU busy: one image is decoded while another is post-processed or encoded
_BASELINE_POINTS_PER_BATCH = 64  # sam2's default


def fill_in(config: GeneratorConfig, mode: Mode, device: torch.device) -> GeneratorConfig:
    """Fills in the defaults that depend on mode and device. Raises StartupError for a flag the device cannot use."""
    mode.require_device(device.type)
    if mode is Mode.BASELINE:
        return replace(config, points_per_batch=config.points_per_batch or _BASELINE_POINTS_PER_BATCH)
    on_gpu = mode.is_compiled and device.type == "cuda"
    every = min(max(config.points_by_layer), _MOST_POINTS_PER_BATCH) if on_gpu else None
    config = replace(config, points_per_batch=config.points_per_batch or every or _POINTS_PER_BATCH[device.type])
    if device.type == "cpu":
        return replace(config, mask_memory_mib=config.mask_memory_mib or _CPU_MASK_MEMORY_MIB)
    if config.mask_memory_mib is not None:
        raise StartupError("--mask_memory_mib is for --device cpu; cuda stores no upsampled masks: leave it out")
    return config


def static_shapes(
    mode: Mode, image_size: int, config: GeneratorConfig, device: torch.device, batch_size: int = 1
) -> SubgraphShapes:
    """The shapes that a compiled mode fixes; see `compiled.static_shapes`. Raises StartupError as `fill_in` does."""
    return compiled.static_shapes(_RECIPES[mode], image_size, fill_in(config, mode, device), device, batch_size)


def subgraphs_of(model: SAM2Base, mode: Mode, device: torch.device, batch_size: int) -> Subgraphs:
    """The uncompiled subgraphs of a compiled mode. May modify `model`.

    Raises StartupError if the mode does not run on the device.
    """
    mode.require_device(device.type)
    return compiled.subgraphs_of(_RECIPES[mode], model, device, batch_size)


def least_decibels(mode: Mode) -> float:
    """Minimum ratio of signal to difference from mode ao, in dB, for predicted IoU and logits of packages.

    Broken packages are far below it. Masks are not compared, because a checkpoint may find none in the photograph.
    """
    return _RECIPES[mode].least_decibels


def compile_mode(
    model: SAM2Base,
    mode: Mode,
    shapes: SubgraphShapes,
    device: torch.device,
    report: Callable[[str], None] = logger.info,
) -> Subgraphs:
    """The compiled subgraphs of a mode. `report` receives progress messages. Raises StartupError if compiling fails."""
    return compile_subgraphs(subgraphs_of(model, mode, device, shapes.batch_size), shapes, device, report)


def build_stages(
    model: SAM2Base,
    mode: Mode,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: MakeSubgraphs,
    batch_size: int = 1,
) -> Stages:
    """The stages of any mode except baseline. `config` must have its defaults filled in."""
    with torch.inference_mode(), float32_convolutions():
        if mode is Mode.AO:
            return ao_stages(model, config, device)
        return compiled.compiled_stages(
            _RECIPES[mode],
            model,
            config,
            device,
            lambda shapes: make_subgraphs(model, mode, shapes, device),
            batch_size,
        )


def build_generator(
    model: SAM2Base,
    mode: Mode,
    config: GeneratorConfig,
    device: torch.device,
    make_subgraphs: MakeSubgraphs = compile_mode,
    batch_size: int = 1,
) -> Generator:
    """The generator of a mode, for a `model` that is on `device`. Modes fast and furious modify the model.

    For a compiled mode, `make_subgraphs` compiles the subgraphs or loads packages. Except in baseline, up to
    `batch_size` images are encoded together.
    """
    config = fill_in(config, mode, device)
    if mode is Mode.BASELINE:
        return BaselineGenerator(model, config)
    stages = build_stages(model, mode, config, device, make_subgraphs, batch_size)
    # in the other cases, one image at a time keeps the device busy
    workers = _GPU_WORKERS if mode.is_compiled and device.type == "cuda" else 1
    return MaskGenerator(stages, config, model.image_size, device, batch_size, workers)
