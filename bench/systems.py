"""What is measured: our modes, and peers; each is a way to build a generator around the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from bench.planted import Planted, PlantedDecoder, PlantingHooks
from bench.timing import StageClock, time_modules, time_stages
from sam2_amg.baseline import BaselineGenerator
from sam2_amg.checkpoints import MODEL_TYPES
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.pipeline import MaskGenerator
from sam2_amg.records import Generator, MaskRecord
from sam2_amg.stages import ao_stages, fill_in


@dataclass(frozen=True)
class Case:
    """What a system is built from. `clock` learns where the time goes; `planted` is None where the model answers."""

    model: SAM2Base
    model_type: str
    config: GeneratorConfig
    device: torch.device
    clock: StageClock
    planted: Planted | None


@dataclass(frozen=True)
class System:
    """A row of the table. `needs_cuda` where it cannot run without."""

    name: str
    what: str
    build: Callable[[Case], Generator]
    needs_cuda: bool = False


def build_baseline(case: Case) -> Generator:
    """sam2's own generator."""
    config = fill_in(case.config, Mode.BASELINE, case.device)
    time_modules(case.clock, case.model.image_encoder, case.model.sam_mask_decoder)
    if case.planted is not None:
        PlantingHooks(case.planted).attach(case.model.image_encoder, case.model.sam_mask_decoder)
    return BaselineGenerator(case.model, config)


def build_ao(case: Case) -> Generator:
    """Mode ao."""
    with torch.inference_mode():
        stages = ao_stages(case.model, case.device)
    if case.planted is not None:
        stages = replace(stages, decoder=PlantedDecoder(stages.decoder, case.planted))
    config = fill_in(case.config, Mode.AO, case.device)
    return MaskGenerator(time_stages(case.clock, stages), config, case.model.image_size, case.device)


class TorchaoGenerator:
    """torchao's former SAM 2 generator (torchao._models.sam2), eager float32, around the same weights."""

    def __init__(self, case: Case, points_per_batch: int) -> None:
        """torchao ships no configuration files: sam2's serve, with the targets of its classes renamed."""
        from torchao._models.sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

        self.config = replace(fill_in(case.config, Mode.BASELINE, case.device), points_per_batch=points_per_batch)
        model = _torchao_model(case.model_type)
        model.load_state_dict(case.model.state_dict())
        model.requires_grad_(False).eval().to(case.device)
        time_modules(case.clock, model.image_encoder, model.sam_mask_decoder)
        if case.planted is not None:
            PlantingHooks(case.planted).attach(model.image_encoder, model.sam_mask_decoder)
        names = ("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh")
        options = {name: getattr(self.config, name) for name in names}
        self.generator = SAM2AutomaticMaskGenerator(model, output_mode="uncompressed_rle", **options)

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]."""
        return self.generator.generate(image)


def _torchao_model(model_type: str) -> Any:
    from importlib.resources import files

    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    text = (files("sam2") / MODEL_TYPES[model_type].config).read_text().replace(": sam2.", ": torchao._models.sam2.")
    return instantiate(OmegaConf.create(text).model, _recursive_=True)


SYSTEMS = {
    system.name: system
    for system in (
        System("baseline", "sam2 1.1.0, float32", build_baseline),
        System("ao", "this project, float32", build_ao),
        System("torchao-64", "torchao 0.17.0, eager float32", lambda case: TorchaoGenerator(case, 64), True),
        System("torchao-1024", "torchao 0.17.0, eager float32", lambda case: TorchaoGenerator(case, 1024), True),
    )
}
