"""Trains the mask decoder on top of an image encoder that stays as it is; a CPU can do it.

    python -m demo.refine TRAINED.pt --output REFINED.pt

Pictures go through the encoder once; then a step costs a second on a CPU core. `demo.calibrate` comes after it.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from demo.consistency import Experience
from demo.embeddings import Embedded, embed_pictures, gather, load, save
from demo.losses import Losses, losses, to_points
from demo.network import SHIPPED_TEMPERATURE, decode, export, load_trained
from demo.optimisation import make_optimizer, move_average
from demo.randomness import Draw
from demo.scenery import choose_prompts
from demo.schedule import REFINEMENT, Stage, learning_rate
from sam2_amg.checkpoints import DEMO_DIR, MODEL_TYPES

_HELD_OUT = 24  # drawn scenes that tell how far it got
_HELD_OUT_PROMPTS = 16  # a scene
_LOG_STEPS = 250
_EMA = 0.99


@dataclass(frozen=True)
class Pictures:
    """What is trained on, and drawn scenes to measure with."""

    trained: list[Embedded]
    held_out: list[Embedded]


def part(pictures: Sequence[Embedded]) -> Pictures:
    """Holds the first drawn scenes out."""
    count = min(_HELD_OUT, len(pictures) // 4)
    return Pictures(list(pictures[count:]), list(pictures[:count]))


def evaluate_losses(
    model: SAM2Base, pictures: Sequence[Embedded], draw: Draw, stage: Stage, experience: Experience
) -> tuple[Losses, Experience]:
    """The losses of some pictures, at prompts that `draw` chooses, and the experience with their masks."""
    features, levels, drawn = gather(pictures)
    pixels = choose_prompts(draw, levels, stage.prompts, stage.uniform_prompts)
    logits, iou = decode(model, features, to_points(pixels, levels.shape[-1]))
    return losses(logits, iou, levels, pixels, drawn, stage.losses, experience)


@torch.no_grad()
def measure(model: SAM2Base, pictures: Sequence[Embedded], stage: Stage) -> Losses:
    """Mean losses of drawn scenes, always at the same prompts."""
    device = pictures[0].levels.device
    stage = replace(stage, prompts=_HELD_OUT_PROMPTS)
    nothing = Experience.empty(device)
    rows = [evaluate_losses(model, [picture], Draw(i, device), stage, nothing)[0] for i, picture in enumerate(pictures)]
    return Losses(*(torch.stack(column).mean() for column in zip(*rows, strict=True)))


def describe(step: int, result: Losses) -> str:
    """One line of the log."""
    return f"step {step}: " + ", ".join(f"{name} {float(value):.4f}" for name, value in result._asdict().items())


def refine(model: SAM2Base, pictures: Pictures, stage: Stage) -> dict[str, Tensor]:
    """Trains the decoder; the averaged weights of the whole model."""
    decoder = model.sam_mask_decoder.requires_grad_(True)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = make_optimizer(decoder.parameters(), stage.learning_rate)
    device = pictures.trained[0].levels.device
    experience = Experience.empty(device)
    print(describe(0, measure(average, pictures.held_out, stage)), flush=True)
    for step in range(stage.steps):
        draw = Draw(step + 1000, device)
        chosen = draw.uniform(len(pictures.trained)).topk(min(stage.batch, len(pictures.trained))).indices.tolist()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step, step / stage.steps)
        optimizer.zero_grad(set_to_none=True)
        result, experience = evaluate_losses(model, [pictures.trained[i] for i in chosen], draw, stage, experience)
        result.total.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), stage.max_norm)
        optimizer.step()
        move_average(average.sam_mask_decoder.state_dict(), decoder, min(_EMA, (1 + step) / (10 + step)))
        if (step + 1) % _LOG_STEPS == 0 or step + 1 == stage.steps:
            print(describe(step + 1, measure(average, pictures.held_out, stage)), flush=True)
    return average.state_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo model's mask decoder on a frozen encoder.")
    parser.add_argument("checkpoint", type=Path, help="weights in the form that ships")
    parser.add_argument("--temperature", type=float, default=SHIPPED_TEMPERATURE, help="of the checkpoint's logits")
    parser.add_argument("--output", type=Path, default=DEMO_DIR / MODEL_TYPES["demo"].file)
    parser.add_argument("--scenes", type=int, default=424, help="drawn, some of them to measure with")
    parser.add_argument("--crops", type=int, default=160, help="of photographs")
    parser.add_argument("--steps", type=int, default=REFINEMENT.steps)
    parser.add_argument("--cache", type=Path, help="a file to keep the embedded pictures in for another run")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that segment photographs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    stage = REFINEMENT.with_steps(args.steps)
    model = load_trained(args.checkpoint, args.temperature, stage.losses.temperature, device)
    if args.cache and args.cache.exists():
        embedded = load(args.cache, device)
    else:
        embedded = embed_pictures(model, args.scenes, args.crops, args.workers)
        if args.cache:
            save(embedded, args.cache)
    export(refine(model, part(embedded), stage), stage.losses.temperature, args.output)


if __name__ == "__main__":
    main()
