"""What is measured: our modes, and peers; each is a way to build a generator around the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from bench.case import Case
from bench.peers import TorchaoGenerator
from bench.planted import PlantedDecoder, PlantingHooks
from bench.timing import time_modules, time_stages
from sam2_amg.baseline import BaselineGenerator
from sam2_amg.config import Mode
from sam2_amg.pipeline import MaskGenerator
from sam2_amg.records import Generator
from sam2_amg.stages import build_stages, fill_in


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
        PlantingHooks(case.planted).attach_to_modules(case.model.image_encoder, case.model.sam_mask_decoder)
    return BaselineGenerator(case.model, config)


def build_ao(case: Case) -> Generator:
    """Mode ao."""
    config = fill_in(case.config, Mode.AO, case.device)
    stages = build_stages(case.model, Mode.AO, config, case.device)
    if case.planted is not None:
        stages = replace(stages, decoder=PlantedDecoder(stages.decoder, case.planted))
    return MaskGenerator(time_stages(case.clock, stages), config, case.model.image_size, case.device)


SYSTEMS = {
    system.name: system
    for system in (
        System("baseline", "sam2 1.1.0, float32", build_baseline),
        System("ao", "this project, float32", build_ao),
        System("torchao-64", "torchao 0.17.0, eager float32", partial(TorchaoGenerator, points_per_batch=64), True),
        System("torchao-1024", "torchao 0.17.0, eager float32", partial(TorchaoGenerator, points_per_batch=1024), True),
        System(
            "torchao-furious",
            "torchao 0.17.0, compiled float16; compiling takes about 12 minutes",
            partial(TorchaoGenerator, points_per_batch=1024, furious=True),
            True,
        ),
    )
}
