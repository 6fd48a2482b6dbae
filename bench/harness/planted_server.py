"""Plants decoder outputs in the product's server, wherever it builds its generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from bench.harness.planted import PlantedDecoder, plant
from sam2_amg.config import GeneratorConfig, ModelConfig
from sam2_amg.network.checkpoints import image_size_of
from sam2_amg.network.model_types import find_model_type
from sam2_amg.network.weights import Weights
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.server import startup

_load = startup.load_generator


def load_and_plant(
    config: ModelConfig,
    parameters: GeneratorConfig,
    report: Callable[[str], None],
    note: Callable[[Weights], None] = lambda _: None,
) -> Generator:
    """As `load_generator` of the product, with planted outputs after the network. Not in mode baseline."""
    generator = _load(config, parameters, report, note)
    assert isinstance(generator, MaskGenerator)
    side = image_size_of(find_model_type(config.model_type)) // 4
    planted = plant(parameters.points_per_side, side, torch.device(config.device))
    generator.stages = replace(generator.stages, decoder=PlantedDecoder(generator.stages.decoder, planted))
    return generator


def plant_in_this_process() -> None:
    """Whatever this process loads from now on has planted outputs."""
    startup.load_generator = load_and_plant
