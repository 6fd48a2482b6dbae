"""Trains the demo model on one CUDA GPU (or, for a test, on the CPU), from scratch or from its own checkpoint.

    python -m demo.train --directory /tmp/demo
    python -m demo.train --directory /tmp/demo --minutes 9    # stops by itself; the next call goes on from there
    python -m demo.train --directory /tmp/demo --start weights.pt    # from these weights, without the first stage

The directory gets `state.pt` to resume from, `log.jsonl`, and `sam2.1_hiera_demo.pt`, the file that ships.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from demo.camera import photograph
from demo.hierarchies import Photographs, crop_photographs, load_photographs
from demo.losses import Losses, losses
from demo.network import build, export, predict, scale_logits
from demo.randomness import Draw
from demo.scenes import Scenes, draw_plan, paint
from demo.schedule import SCHEDULE, Stage, learning_rate, stage_progress
from demo.textures import draw_textures
from sam2_amg.checkpoints import MODEL_TYPES, load_model

FIRST_SEED = 1_000_000  # of training scenes; evaluation has those below
_TEXTURE_SEED = 500_000_000
_TEXTURE_STEPS = 100  # steps until textures are drawn anew
_SAVE_STEPS = 1000
_LOG_STEPS = 100
_EMA = 0.999
_DECAY = 0.05
_MAX_NORM = 1.0
_SAVED = ("step", "seconds", "stage_seconds", "average", "last_temperature")


@dataclass(frozen=True)
class TrainConfig:
    """What the command line decides."""

    directory: Path
    device: torch.device
    schedule: tuple[Stage, ...]
    minutes: float
    compile: bool
    workers: int
    start: Path | None = None


@dataclass
class Run:
    """Where training stands."""

    model: SAM2Base
    average: dict[str, Tensor]  # exponential moving average of the weights
    optimizer: torch.optim.Optimizer
    stage: int = 0
    step: int = 0  # in the stage
    seconds: float = 0.0  # of all calls so far
    stage_seconds: float = 0.0
    last_temperature: float = 1.0
    over: bool = False  # the stage


class Scenery:
    """Batches for one stage."""

    def __init__(self, stage: Stage, index: int, config: TrainConfig, photographs: Photographs | None) -> None:
        self.stage, self.index, self.device = stage, index, config.device
        self.photographs = photographs if stage.photograph_share else None
        self._paint: Callable[..., Scenes] = torch.compile(paint, dynamic=False) if config.compile else paint
        self._borrowed = None if photographs is None else torch.cat([photographs.textures, photographs.images])
        self._textures = torch.empty(0)
        self._texture_seed = -1

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, levels, prompts (pixels counted along rows, [B, P]) and which images teach IoU, [B]."""
        stage = self.stage
        self._renew_textures(step)
        draw = Draw(FIRST_SEED * (self.index + 1) + step, self.device)
        photographs = round(stage.batch * stage.photograph_share) if self.photographs else 0
        plan = draw_plan(draw, stage.scenes, stage.batch - photographs, stage.resolution, stage.textures)
        images, levels = self._paint(plan, self._textures)
        if self.photographs:
            cropped = crop_photographs(draw, self.photographs, photographs, stage.resolution)
            images, levels = torch.cat([images, cropped.images]), torch.cat([levels, cropped.levels])
        images = photograph(draw, images, stage.camera)
        trusted = (torch.arange(stage.batch, device=self.device) < stage.batch - photographs).float()
        return images, levels, choose_prompts(draw, levels, stage.prompts, stage.uniform_prompts), trusted

    def _renew_textures(self, step: int) -> None:
        seed = _TEXTURE_SEED + 1_000_000 * self.index + step // _TEXTURE_STEPS
        if seed != self._texture_seed:
            borrowed = None if self._borrowed is None else self._borrowed.float() / 255
            draw = Draw(seed, self.device)
            self._textures = draw_textures(draw, self.stage.textures, self.stage.resolution, borrowed)
            self._texture_seed = seed


def choose_prompts(draw: Draw, levels: Tensor, count: int, uniform: float) -> Tensor:
    """Pixels to point at, [B, count]: `uniform` of them anywhere, the others in small regions as often as in large."""
    batch = len(levels)
    candidates = draw.integer(batch, 1024, below=levels.shape[2] * levels.shape[3])
    region = levels[:, 0].flatten(1).gather(1, candidates)
    alike = (region[:, :, None] == region[:, None]).sum(2)  # how many of the candidates lie in the same region
    anywhere = round(uniform * count)
    if anywhere == count:
        return candidates[:, :count]
    balanced = draw.pick(1.0 / alike.clamp_min(2), count - anywhere)
    return torch.cat([candidates[:, :anywhere], candidates.gather(1, balanced)], 1)


def evaluate_losses(
    model: SAM2Base, images: Tensor, levels: Tensor, pixels: Tensor, trusted: Tensor, stage: Stage
) -> Losses:
    """The losses of one batch; mixed precision on a GPU."""
    side = levels.shape[-1]
    points = torch.stack([pixels % side, pixels // side], 2).float() + 0.5  # [B, P, 2], (x, y)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.device.type == "cuda"):
        logits, iou = predict(model, images, points)
    return losses(logits, iou, levels, pixels, trusted, stage.losses)


def make_optimizer(model: SAM2Base, stage: Stage) -> torch.optim.Optimizer:
    """AdamW; vectors do not decay."""
    trained = list(model.parameters())
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": _DECAY},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.98), fused=True)


def begin_stage(config: TrainConfig, index: int, weights: dict[str, Tensor] | None, temperature: float) -> Run:
    """A run at the beginning of a stage, from the averaged weights of the stage before, or from scratch."""
    stage = config.schedule[index]
    model = build(stage.resolution)
    if weights is not None:
        model.load_state_dict(weights)
        scale_logits(model.state_dict(), stage.losses.temperature / temperature)
    model.to(config.device).train()
    with torch.no_grad():  # fills sam2's cache of position encodings, which would have the step compiled twice
        model.forward_image(torch.zeros(1, 3, stage.resolution, stage.resolution, device=config.device))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return Run(model, average, make_optimizer(model, stage), index, last_temperature=stage.losses.temperature)


def save(run: Run, config: TrainConfig) -> None:
    """Writes the state to resume from, and the file that ships."""
    fields = {name: getattr(run, name) for name in ("stage", *_SAVED)}
    state = {**fields, "model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    temporary = config.directory / "state.part"
    torch.save(state, temporary)
    temporary.rename(config.directory / "state.pt")
    export(run.average, config.directory / MODEL_TYPES["demo"].file)


def resume(config: TrainConfig) -> Run:
    """The run that the directory holds, or a new one."""
    path = config.directory / "state.pt"
    if not path.is_file() and config.start is not None:
        kind = MODEL_TYPES["demo"]
        weights = load_model(config.start, kind, torch.device("cpu")).state_dict()
        return begin_stage(config, 1, weights, config.schedule[1].losses.temperature)
    if not path.is_file():
        torch.manual_seed(0)
        return begin_stage(config, 0, None, config.schedule[0].losses.temperature)
    state: dict[str, Any] = torch.load(path, map_location=config.device, weights_only=True)
    run = begin_stage(config, state["stage"], None, 1.0)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    for name in _SAVED:
        setattr(run, name, state[name])
    return run


@torch.no_grad()
def update_average(run: Run) -> None:
    """Moves the average towards the weights; faster at first, when they are worth little."""
    decay = min(_EMA, (1 + run.step) / (10 + run.step))
    trained = [(name, value) for name, value in run.model.named_parameters() if value.grad is not None]
    torch._foreach_lerp_([run.average[name] for name, _ in trained], [value for _, value in trained], 1 - decay)


def take_step(
    run: Run, stage: Stage, progress: float, batch: Sequence[Tensor], loss_of: Callable[..., Losses]
) -> dict[str, float]:
    """One step of the optimizer; none where the gradient is not finite. Returns what to log, on log steps."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(stage, run.step, progress)
    run.optimizer.zero_grad(set_to_none=True)
    result = loss_of(run.model, *batch, stage)
    result.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), _MAX_NORM)
    # The fused optimizer looks at this by itself, so that the host need not wait for the device.
    run.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    run.optimizer.step()
    update_average(run)
    run.step += 1
    if run.step % _LOG_STEPS and run.step != stage.steps:
        return {}
    return {**{name: value.item() for name, value in result._asdict().items()}, "norm": norm.item()}


def run_stage(run: Run, config: TrainConfig, photographs: Photographs | None, deadline: float) -> None:
    """Trains until the stage or the time is over."""
    stage = config.schedule[run.stage]
    scenery = Scenery(stage, run.stage, config, photographs)
    loss_of = torch.compile(evaluate_losses, dynamic=False) if config.compile else evaluate_losses
    last = time.monotonic()
    begun = last - run.stage_seconds
    while time.monotonic() < deadline:
        progress = stage_progress(stage, run.step, time.monotonic() - begun)
        run.over = progress >= 1
        if run.over:
            break
        figures = take_step(run, stage, progress, scenery.draw(run.step), loss_of)
        run.stage_seconds = time.monotonic() - begun
        if figures:
            now = time.monotonic()
            run.seconds, last = run.seconds + now - last, now
            entry = {"stage": stage.name, "step": run.step, "seconds": round(run.seconds, 1)}
            line = json.dumps({**entry, **{name: round(value, 4) for name, value in figures.items()}})
            print(line, flush=True)
            with (config.directory / "log.jsonl").open("a") as log:
                log.write(line + "\n")
        if run.step % _SAVE_STEPS == 0:
            save(run, config)
    run.seconds += time.monotonic() - last


def train(config: TrainConfig) -> Run:
    """Trains through the schedule, as far as the time allows."""
    config.directory.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + config.minutes * 60
    wanted = any(stage.photograph_share and stage.steps for stage in config.schedule)
    photographs = load_photographs(config.workers) if wanted else None
    if photographs is not None:
        photographs = Photographs(*(tensor.to(config.device) for tensor in photographs))
    run = resume(config)
    while True:
        run_stage(run, config, photographs, deadline)
        if not run.over or run.stage + 1 == len(config.schedule):
            save(run, config)
            return run
        seconds = run.seconds
        run = begin_stage(config, run.stage + 1, run.average, run.last_temperature)
        run.seconds = seconds
        save(run, config)


def _parse(arguments: Sequence[str] | None) -> TrainConfig:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--directory", type=Path, required=True, help="where the state is, or will be")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time (default: never)")
    parser.add_argument("--steps", type=int, nargs=len(SCHEDULE), help="steps of each stage, instead of the schedule's")
    parser.add_argument(
        "--stage_minutes", type=float, nargs=len(SCHEDULE), help="how long each stage lasts; 0: by steps"
    )
    parser.add_argument("--batch", type=int, help="images a step, instead of the schedule's")
    parser.add_argument("--prompts", type=int, help="points an image, instead of the schedule's")
    parser.add_argument("--start", type=Path, help="weights to begin the second stage with, a file that ships")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--photograph_share", type=float, help="share of photographs; 0 needs no package for them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that segment photographs")
    args = parser.parse_args(arguments)
    stages = []
    for index, stage in enumerate(SCHEDULE):
        given = {name: getattr(args, name) for name in ("batch", "prompts") if getattr(args, name)}
        if args.steps:
            given["steps"] = args.steps[index]
        if args.stage_minutes:
            given["minutes"] = args.stage_minutes[index]
        if args.photograph_share is not None and stage.photograph_share:
            given["photograph_share"] = args.photograph_share
        stages.append(replace(stage, **given))
    return TrainConfig(
        directory=args.directory,
        device=torch.device(args.device),
        schedule=tuple(stages),
        minutes=args.minutes,
        compile=not args.eager,
        workers=args.workers,
        start=args.start,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    run = train(_parse(arguments))
    print(f"stage {run.stage}, step {run.step}, {run.seconds / 60:.1f} minutes of training")


if __name__ == "__main__":
    main()
