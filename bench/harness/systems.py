"""What is measured: our modes, and peers; each is a way to build a generator around the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from sam2 import automatic_mask_generator

from bench.harness.case import Case
from bench.harness.peers import Numbers, TorchaoGenerator
from bench.harness.planted import PlantedDecoder, PlantingHooks
from bench.harness.timing import StageClock, time_sam2_like, time_stages
from sam2_amg.config import Mode
from sam2_amg.modes.baseline import BaselineGenerator
from sam2_amg.modes.build import build_generator, fill_in
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator

_WHAT = {
    Mode.AO: "this project, float32",
    Mode.FAST: "this project, compiled",
    Mode.FURIOUS: "this project, compiled, float16",
}
MODES = tuple(mode for mode in Mode if mode.is_pipeline)


@dataclass(frozen=True)
class System:
    """A row of the table. `mode` is None for peers; `needs_cuda` where it cannot run without.

    `compiles` where its start takes a minute or more of compiling.
    """

    name: str
    what: str
    build: Callable[[Case], Generator]
    mode: Mode | None = None
    needs_cuda: bool = False
    compiles: bool = False


def modes_on(device: torch.device) -> tuple[Mode, ...]:
    """Our modes that a device can run, but for baseline."""
    return tuple(mode for mode in MODES if device.type in mode.devices)


def build_baseline(case: Case) -> Generator:
    """sam2's own generator."""
    if case.planted is not None:
        PlantingHooks(case.planted).attach_to_modules(case.model.image_encoder, case.model.sam_mask_decoder)
    baseline = BaselineGenerator(case.model, fill_in(case.config, Mode.BASELINE, case.device))
    _time_sam2(case.clock, baseline.generator)
    return baseline


def _time_sam2(clock: StageClock, generator: automatic_mask_generator.SAM2AutomaticMaskGenerator) -> None:
    methods = (
        (generator.predictor, "_predict", "decoder"),
        (generator.predictor._transforms, "postprocess_masks", "measure"),  # upsampling
    )
    time_sam2_like(clock, generator, automatic_mask_generator, methods, {"mask_to_rle_pytorch": "rle"})


def build_mode(case: Case, mode: Mode) -> Generator:
    """A mode that is made of stages."""
    generator = build_generator(case.model, mode, case.config, case.device, batch_size=case.batch_size)
    assert isinstance(generator, MaskGenerator)
    stages = generator.stages
    if case.planted is not None:
        stages = replace(stages, decoder=PlantedDecoder(stages.decoder, case.planted))
    generator.stages = time_stages(case.clock, stages)
    return generator


def _system(mode: Mode) -> System:
    return System(
        mode.value,
        _WHAT[mode],
        partial(build_mode, mode=mode),
        mode,
        needs_cuda="cpu" not in mode.devices,
        compiles=mode.is_compiled,
    )


def _torchao(name: str, points_per_batch: int, numbers: Numbers, compiled: bool = False, note: str = "") -> System:
    build = partial(TorchaoGenerator, points_per_batch=points_per_batch, numbers=numbers, compiled=compiled)
    how = "compiled" if compiled else "eager"
    return System(
        f"torchao-{name}", f"torchao 0.17.0, {how} {numbers}{note}", build, needs_cuda=True, compiles=compiled
    )


SYSTEMS = {
    system.name: system
    for system in (
        System("baseline", "sam2 1.1.0, float32", build_baseline, Mode.BASELINE),
        *(_system(mode) for mode in MODES),
        _torchao("64", 64, "float32"),
        _torchao("1024", 1024, "float32"),
        _torchao("tf32", 64, "TF32"),
        _torchao("float16", 64, "float16"),  # a batch of 1,024 points would take 46 GiB
        _torchao("furious", 1024, "float16", compiled=True, note="; compiling takes about 12 minutes"),
    )
}
