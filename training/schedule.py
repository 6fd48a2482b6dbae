"""The course that training takes: stage after stage, from few large shapes to full scenes, and what each is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from training.losses import LossConfig
from training.scenes.scenes import SceneConfig

_FLOOR = 0.02  # of the learning rate, at the end


@dataclass(frozen=True)
class Stage:
    """One stretch of training. `photograph_share` of a batch are crops of photographs."""

    name: str
    steps: int
    minutes: float = 0.0  # where given, the stage lasts this long, whatever the number of steps
    resolution: int = 512
    batch: int = 40
    prompts: int = 16
    compared: int = 512  # pixels an image that are compared with each other, see training/auxiliary.py
    reuse: int = 8  # how often a scene is shown: drawing takes as long as a step
    pool: int = 32  # batches of scenes that are kept to choose from
    learning_rate: float = 4e-4
    warm_up: int = 300  # steps
    cycles: int = 1  # of the learning rate, which falls to its floor in each
    cycle_decay: float = 0.8  # of the highest learning rate, from cycle to cycle
    max_norm: float = 1.0  # of the gradient
    scenes: SceneConfig = field(default_factory=SceneConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    photograph_share: float = 0.2
    rooms: float = 0.2  # share of a batch that is drawn in space, see training/scenes/rooms.py
    before_photographs: float = 0.4  # share of flat scenes whose things stand before a photograph
    pasted: float = 0.5  # share of crops into which a thing of another is pasted, if it is not too large
    camera: float = 1.0
    light: float = 1.0  # see training/scenes/light.py; scenes to be judged by have none of it
    textures: int = 42
    uniform_prompts: float = 0.4  # share of prompts that fall anywhere, as a grid's do; others prefer small regions


def _simple(smallest: float) -> SceneConfig:
    return SceneConfig(backgrounds=1, things=6, parts=3, smallest=smallest, structured=0.15, plain=True)


_BOLD = SceneConfig(boldest=0.35)  # in photographs surfaces are spotted more than those that judge

SCHEDULE = (
    # From scratch at 512 pixels and with many shapes it does not start: nothing is learned for thousands of steps.
    Stage(
        name="start",
        steps=2500,
        resolution=256,
        batch=32,
        learning_rate=6e-4,
        scenes=_simple(0.15),
        losses=LossConfig(temperature=1.0, focal=20.0, cross_entropy=0.5, edge=0.0, smooth=0.0, bent=0.0),
        photograph_share=0.0,
        rooms=0.0,
        before_photographs=0.0,
        camera=0.3,
        light=0.0,
    ),
    # A quarter of the pixels a picture: most of what there is to learn does not need more.
    # Batches are as large as keeps the GPU busy: the host needs 60 ms for a step of any size.
    Stage(name="small", steps=15000, resolution=256, batch=128, learning_rate=8e-4, warm_up=500, scenes=_BOLD),
    # By then it is the masks' scores that hold a generator back.
    Stage(name="scenes", steps=15000, learning_rate=6e-4, scenes=_BOLD, losses=LossConfig(iou=4.0)),
)


def cycle_of(stage: Stage, progress: float) -> int:
    """Which cycle of the learning rate it is, from 0; `progress` through the stage is from 0 to 1."""
    return min(int(progress * stage.cycles), stage.cycles - 1)


def learning_rate(stage: Stage, step: int, progress: float) -> float:
    """A linear warm-up, then cosines, each lower than the one before."""
    cycle = cycle_of(stage, progress)
    within = min(progress * stage.cycles - cycle, 1.0)
    cosine = _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * within))
    return stage.learning_rate * stage.cycle_decay**cycle * min(1.0, (step + 1) / stage.warm_up) * cosine


def stage_progress(stage: Stage, step: int, seconds: float) -> float:
    """How much of the stage is done after so many steps and seconds; 1 or more when it is over."""
    if stage.minutes:
        return seconds / (60 * stage.minutes)
    return step / stage.steps if stage.steps else 1.0
