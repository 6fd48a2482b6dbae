"""Fits the head that predicts IoU to the masks of a trained model, which stay as they are.

    python -m demo.calibrate TRAINED.pt --output demo/sam2.1_hiera_demo.pt

While masks improve, predicted IoU lags behind them; here they stand still. What the head reads, one token a point, is
computed once for points of a shifted grid on drawn scenes, so that fitting it takes seconds, even on a CPU.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from demo.camera import photograph
from demo.losses import real_ious
from demo.network import MASKS, decode, export, normalise
from demo.randomness import Draw
from demo.scenes import SceneConfig, draw_plan, paint
from demo.textures import draw_textures
from sam2_amg.checkpoints import DEMO_DIR, MODEL_TYPES, load_model
from sam2_amg.encoder import encode

FIRST_SEED = 3_000_000  # of its scenes: neither training nor evaluation draws these
_SCENES_PER_BANK = 10  # scenes that share their textures
_TEXTURES = 28
_HELD_OUT = 0.15  # share of scenes that tell when to stop
_BATCH = 512


@dataclass(frozen=True)
class Samples:
    """One row a point, scene after scene: what the head reads, [n, 256], and the IoU it should predict, [n, 3]."""

    tokens: Tensor
    ious: Tensor


def grid_points(draw: Draw, side: int, points_per_side: int) -> Tensor:
    """A grid of points, (x, y), shifted by up to half its spacing. [1, P, 2]"""
    spacing = side / points_per_side
    line = (torch.arange(points_per_side, device=draw.device) + 0.5) * spacing
    shift = draw.uniform(2, low=-spacing / 2, high=spacing / 2)
    x, y = torch.meshgrid(line + shift[0], line + shift[1], indexing="xy")
    return torch.stack([x, y], 2).view(1, -1, 2).clamp(0.5, side - 0.5)


@torch.no_grad()
def collect(model: SAM2Base, scenes: int, points_per_side: int, device: torch.device) -> Samples:
    """Runs the model on drawn scenes."""
    side, tokens, ious = model.image_size, [], []
    head = model.sam_mask_decoder.iou_prediction_head
    hook = head.register_forward_pre_hook(lambda _, read: tokens.append(read[0].clone()))
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        if (seed - FIRST_SEED) % _SCENES_PER_BANK == 0:
            textures = draw_textures(Draw(seed, device), _TEXTURES, side)
        draw = Draw(seed, device)
        scene = paint(draw_plan(draw, SceneConfig(), 1, side, _TEXTURES), textures)
        features = encode(model, normalise(photograph(draw, scene.images)))
        for points in grid_points(draw, side, points_per_side).split(32, dim=1):
            logits, _ = decode(model, features, points)
            pixels = points[..., 1].long() * side + points[..., 0].long()
            ious.append(real_ious(logits, scene.levels, pixels, side // 2).amax(2))
        if (seed - FIRST_SEED) % 10 == 9:
            print(f"{seed - FIRST_SEED + 1} of {scenes} scenes", flush=True)
    hook.remove()
    return Samples(torch.cat(tokens), torch.cat(ious))


def fit(head: nn.Module, samples: Samples, epochs: int, learning_rate: float) -> tuple[float, float]:
    """Trains the head in place, keeping the weights of the best epoch. Mean absolute error before and after.

    Both errors are those of the last scenes, which it is not trained on.
    """
    cut = round(len(samples.tokens) * (1 - _HELD_OUT))
    draw = Draw(0, samples.tokens.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def held_out_error() -> float:
        with torch.no_grad():
            return float((head(samples.tokens[cut:])[:, 1 : 1 + MASKS] - samples.ious[cut:]).abs().mean())

    before = best = held_out_error()
    weights = copy.deepcopy(head.state_dict())
    for _ in range(epochs):
        for rows in draw.uniform(cut).argsort().split(_BATCH):
            predicted = head(samples.tokens[rows])[:, 1 : 1 + MASKS]
            loss = F.l1_loss(predicted, samples.ious[rows]) + F.mse_loss(predicted, samples.ious[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if (error := held_out_error()) < best:
            best, weights = error, copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return before, best


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fit the demo model's predicted IoU.")
    parser.add_argument("checkpoint", type=Path, help="a file that ships, as demo.train writes it")
    parser.add_argument("--output", type=Path, default=DEMO_DIR / MODEL_TYPES["demo"].file)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--points_per_side", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    model = load_model(args.checkpoint, MODEL_TYPES["demo"], device)
    samples = collect(model, args.scenes, args.points_per_side, device)
    head = model.sam_mask_decoder.iou_prediction_head.requires_grad_(True)
    before, after = fit(head, samples, args.epochs, args.learning_rate)
    print(f"{len(samples.tokens)} points; held-out error of predicted IoU: {before:.3f}, then {after:.3f}")
    export(model.state_dict(), args.output)


if __name__ == "__main__":
    main()
