"""Trains the demo model on CUDA GPUs (or, for a test, on the CPU), from scratch or from its own checkpoint.

    python -m training.train --directory /tmp/demo
    python -m training.train --directory /tmp/demo --minutes 9    # stops by itself; the next call goes on from there
    python -m training.train --directory /tmp/demo --weights weights.pt    # from these weights, without the first stage
    torchrun --nproc_per_node 2 -m training.train --directory /tmp/demo  # on two GPUs, each with a batch of its own

The directory gets `state.pt` to resume from, `log.jsonl`, `sam2.1_hiera_demo.pt`, the file that ships, and
`auxiliary.pt`, which another run with these weights may begin with (`--auxiliary`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.encoder import encode
from training.auxiliary import Auxiliary
from training.batch import Batch
from training.batches import RUNS, Batches
from training.consistency import Experience
from training.losses import LossConfig, Losses, losses, to_points
from training.network import SHIPPED_TEMPERATURE, decode, normalise
from training.photographs.crops import Photographs, read_photographs
from training.ranks import Ranks
from training.run import Run, TrainConfig, next_stage, resume, save, write_weights
from training.schedule import SCHEDULE, Stage, cycle_of, learning_rate, stage_progress

_SAVE_STEPS = 1000
_LOG_STEPS = 100
_EMA = 0.998


def evaluate_losses(
    model: SAM2Base, auxiliary: Auxiliary, batch: Batch, config: LossConfig, experience: Tensor
) -> tuple[Losses, Tensor]:
    """The losses of one batch, mixed precision on a GPU, and the experience with it."""
    images = batch.images
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=images.device.type == "cuda"):
        features = encode(model, normalise(images))
        logits, iou = decode(model, features, to_points(batch.pixels, images.shape[-1]))
        dense = auxiliary(features)
    result, (counts,) = losses(logits, iou, dense, batch, config, Experience(experience))
    return result, counts


@torch.no_grad()
def move_average(run: Run, decay: float) -> None:
    """Moves the average towards those weights that the last step had gradients for."""
    trained = [(name, value) for name, value in run.model.named_parameters() if value.grad is not None]
    torch._foreach_lerp_([run.average[name] for name, _ in trained], [value for _, value in trained], 1 - decay)


def take_step(
    run: Run, stage: Stage, progress: float, batch: Batch, loss_of: Callable[..., tuple[Losses, Tensor]], ranks: Ranks
) -> dict[str, float]:
    """One step of the optimizer; none where the gradient is not finite. Returns what to log, on log steps."""
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(stage, run.step, progress)
    run.optimizer.zero_grad(set_to_none=True)
    result, run.experience = loss_of(run.model, run.auxiliary, batch, stage.losses, run.experience)
    result.total.backward()
    ranks.average([value.grad for value in run.parameters() if value.grad is not None] + [run.experience])
    norm = torch.nn.utils.clip_grad_norm_(run.parameters(), stage.max_norm)
    # The fused optimizer looks at this by itself, so that the host need not wait for the device.
    run.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    run.optimizer.step()
    # The average follows faster at first, when it is worth little.
    move_average(run, min(_EMA, (1 + run.step) / (10 + run.step)))
    run.step += 1
    if run.step % _LOG_STEPS and run.step != stage.steps:
        return {}
    return {**{name: value.item() for name, value in result._asdict().items()}, "norm": norm.item()}


def run_stage(run: Run, config: TrainConfig, photographs: Photographs | None, deadline: float, ranks: Ranks) -> None:
    """Trains until the stage or the time is over."""
    stage = config.schedule[run.stage]
    batches = Batches(stage, run.stage, config.device, config.compile, photographs, ranks, config.seed)
    loss_of = torch.compile(evaluate_losses, dynamic=False) if config.compile else evaluate_losses
    last = time.monotonic()
    begun = last - run.stage_seconds
    while ranks.share_number(time.monotonic()) < deadline:
        progress = ranks.share_number(stage_progress(stage, run.step, time.monotonic() - begun))
        run.over = progress >= 1
        if run.over:
            break
        if (cycle := cycle_of(stage, progress)) != run.cycle:
            if ranks.first:
                write_weights(run, config, f"{stage.name}-{run.cycle}.pt")
            run.cycle = cycle
        figures = take_step(run, stage, progress, batches.draw(run.step), loss_of, ranks)
        run.stage_seconds = time.monotonic() - begun
        if figures and ranks.first:
            now = time.monotonic()
            run.seconds, last = run.seconds + now - last, now
            entry = {"stage": stage.name, "step": run.step, "seconds": round(run.seconds, 1)}
            line = json.dumps({**entry, **{name: round(value, 4) for name, value in figures.items()}})
            print(line, flush=True)
            with (config.directory / "log.jsonl").open("a") as log:
                log.write(line + "\n")
        if run.step % _SAVE_STEPS == 0 and ranks.first:
            save(run, config)
    run.seconds += time.monotonic() - last


def _load_photographs(config: TrainConfig, ranks: Ranks) -> Photographs:
    """The first process segments them, where that is still to be done; the others wait."""
    if not ranks.first:
        ranks.wait()
    photographs = read_photographs(config.directory, config.workers)
    if ranks.first:
        ranks.wait()
    return photographs


def train(config: TrainConfig, ranks: Ranks) -> Run:
    """Trains through the schedule, as far as the time allows."""
    config.directory.mkdir(parents=True, exist_ok=True)
    deadline = ranks.share_number(time.monotonic() + config.minutes * 60)
    wanted = any(stage.photograph_share and stage.steps for stage in config.schedule)
    photographs = _load_photographs(config, ranks) if wanted else None
    photographs = photographs.to(config.device) if photographs else None
    run = resume(config)
    while True:
        ranks.share([*run.parameters(), *run.average.values()])  # what is drawn by chance at the beginning differs
        run_stage(run, config, photographs, deadline, ranks)
        if ranks.first:
            save(run, config)
        if not run.over or run.stage + 1 == len(config.schedule):
            return run
        run = next_stage(run, config)


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
    parser.add_argument("--learning_rate", type=float, help="the highest, instead of the schedule's")
    parser.add_argument("--weights", type=Path, help="weights to begin the second stage with, a file that ships")
    parser.add_argument(
        "--weights_temperature", type=float, default=SHIPPED_TEMPERATURE, help="of those weights' logits"
    )
    parser.add_argument("--auxiliary", type=Path, help="auxiliary.pt of the run that those weights come from")
    parser.add_argument("--seed", type=int, choices=range(RUNS), default=0, help="others have other scenes (default 0)")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument(
        "--photograph_share",
        type=float,
        help="share of photographs; with 0 none lies behind things, either, or is needed",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that segment photographs")
    args = parser.parse_args(arguments)
    if args.auxiliary and not args.weights:
        parser.error("--auxiliary belongs to the weights that a run begins with: give --weights, too")
    stages = []
    for index, stage in enumerate(SCHEDULE):
        given = {name: getattr(args, name) for name in ("batch", "prompts", "learning_rate") if getattr(args, name)}
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
        weights=args.weights,
        weights_temperature=args.weights_temperature,
        auxiliary=args.auxiliary,
        seed=args.seed,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    config = _parse(arguments)
    ranks = Ranks.join(config.device)
    run = train(config, ranks)
    ranks.leave()
    if ranks.first:
        print(f"stage {run.stage}, step {run.step}, {run.seconds / 60:.1f} minutes of training")


if __name__ == "__main__":
    main()
