"""Where training stands: its state, how it begins, is saved, and is taken up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from training.auxiliary import Auxiliary
from training.consistency import Experience
from training.network import SHIPPED_TEMPERATURE, build, export, scale_logits
from training.schedule import Stage

_DECAY = 0.05  # of weights
_SAVED = ("step", "seconds", "stage_seconds", "cycle", "average", "experience")
_PARTS = ("model", "auxiliary", "optimizer")


@dataclass(frozen=True)
class TrainConfig:
    """What the command line decides."""

    directory: Path
    device: torch.device
    schedule: tuple[Stage, ...]
    minutes: float
    compile: bool
    workers: int
    weights: Path | None = None
    weights_temperature: float = SHIPPED_TEMPERATURE
    auxiliary: Path | None = None  # of the run that the weights come from
    seed: int = 0


@dataclass
class Run:
    """Where training stands."""

    model: SAM2Base
    auxiliary: Auxiliary  # what the encoder is asked besides; it does not ship
    average: dict[str, Tensor]  # exponential moving average of the weights
    optimizer: torch.optim.Optimizer
    experience: Tensor  # see training/consistency.py
    stage: int = 0
    step: int = 0  # in the stage
    cycle: int = 0  # of the learning rate, in the stage
    seconds: float = 0.0  # of all calls so far
    stage_seconds: float = 0.0
    over: bool = False  # the stage

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [*self.model.parameters(), *self.auxiliary.parameters()]


def make_optimizer(trained: Sequence[nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    """AdamW; vectors do not decay."""
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": _DECAY},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def begin_stage(config: TrainConfig, index: int, weights: dict[str, Tensor] | None, temperature: float) -> Run:
    """A run at the beginning of a stage, from scratch or from weights that were trained at `temperature`."""
    stage = config.schedule[index]
    model = build(stage.resolution)
    if weights is not None:
        model.load_state_dict(weights)
        scale_logits(model.state_dict(), stage.losses.temperature / temperature)
    model.to(config.device).train()
    with torch.no_grad():  # fills sam2's cache of position encodings, which would have the step compiled twice
        model.forward_image(torch.zeros(1, 3, stage.resolution, stage.resolution, device=config.device))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    auxiliary = Auxiliary().to(config.device)
    optimizer = make_optimizer([*model.parameters(), *auxiliary.parameters()], stage.learning_rate)
    return Run(model, auxiliary, average, optimizer, Experience.empty(config.device).counts, index)


def write_weights(run: Run, config: TrainConfig, name: str) -> None:
    """Writes the averaged weights in the form that ships."""
    export(run.average, config.schedule[run.stage].losses.temperature, config.directory / name)


def save(run: Run, config: TrainConfig) -> None:
    """Writes the state to resume from, the file that ships, and what another run with its weights begins with."""
    fields = {name: getattr(run, name) for name in ("stage", *_SAVED)}
    state = {**fields, **{part: getattr(run, part).state_dict() for part in _PARTS}}
    temporary = config.directory / "state.part"
    torch.save(state, temporary)
    temporary.rename(config.directory / "state.pt")
    write_weights(run, config, MODEL_TYPES["demo"].file)
    torch.save(run.auxiliary.state_dict(), config.directory / "auxiliary.pt")


def resume(config: TrainConfig) -> Run:
    """The run that the directory holds, or a new one."""
    path = config.directory / "state.pt"
    if not path.is_file() and config.weights is not None:
        weights = load_model(config.weights, MODEL_TYPES["demo"], torch.device("cpu")).state_dict()
        run = begin_stage(config, 1, weights, config.weights_temperature)
        if config.auxiliary is not None:
            run.auxiliary.load_state_dict(torch.load(config.auxiliary, map_location=config.device, weights_only=True))
        return run
    if not path.is_file():
        torch.manual_seed(0)
        return begin_stage(config, 0, None, 1.0)
    state: dict[str, Any] = torch.load(path, map_location=config.device, weights_only=True)
    run = begin_stage(config, state["stage"], None, 1.0)
    for part in _PARTS:
        getattr(run, part).load_state_dict(state[part])
    for name in _SAVED:
        setattr(run, name, state[name])
    return run


def next_stage(run: Run, config: TrainConfig) -> Run:
    """The beginning of the stage after, from the averaged weights."""
    begun = begin_stage(config, run.stage + 1, run.average, config.schedule[run.stage].losses.temperature)
    begun.auxiliary.load_state_dict(run.auxiliary.state_dict())
    begun.seconds = run.seconds
    return begun
