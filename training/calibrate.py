"""Fits the head that predicts IoU to the masks of a trained model, which stay as they are.

    python -m training.calibrate TRAINED.pt --quantile 0.55 --photograph_quantile 0.998 --scenes 400 --crops 120 \
        --points_per_side 20 --float32 --output FITTED.pt

While masks improve, predicted IoU lags behind them; here they stand still. What the head reads, one token a point, is
computed once for points of a shifted grid, on drawn scenes, where the IoU is known, and on photographs, where it is
what experience with drawn scenes expects of masks with the same signs (training/consistency.py).

What is fitted is a quantile of the IoU, given what the head reads: the median is off by least, and a higher one lets
more masks pass the generator's threshold, wrong ones, too. Photographs, where the IoU is a guess and few masks pass,
can have one of their own (`--photograph_quantile`).

Points nearby agree on halves of floors and walls that end in stairs, along cells of the image embedding, as on good
masks. A second run, with `--stairs`, teaches the head, as it then is, to predict less of these:

    python -m training.calibrate FITTED.pt --stairs 3 --stairs_quantile 0.2 --scenes 50 --crops 150 \
        --points_per_side 14 --output sam2_amg/demo/sam2.1_hiera_demo.pt
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.demo import DEMO_DIR
from sam2_amg.network.decoder import every_mask, predict
from sam2_amg.network.encoder import encode
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.model_types import MODEL_TYPES
from training.consistency import Experience, Signs, cross_ious, read_signs, weighted_mean
from training.network import MASKS, SHIPPED_TEMPERATURE, export, load_trained, normalise
from training.photographs.crops import Photographs, load_photographs, read_photographs
from training.scenes.randomness import Draw
from training.scenes.scenery import draw_crops, draw_scene
from training.scenes.scenes import Scenes
from training.unseen import stairs

FIRST_SEED = 9_000_000  # of scenes: neither training nor evaluation draws these
_FIRST_CROP = 9_500_000
_HELD_OUT = 7  # every seventh picture tells when to stop
_BATCH = 2048
_POINTS = {"cpu": 8, "cuda": 64}  # at a time


class Samples(NamedTuple):
    """One row a point: what the head reads, [n, 256]; the IoU it should predict, [n, 3], NaN where unknown; which
    quantile of it, [n, 1]; and how much each mask counts, [n, 3]."""

    tokens: Tensor
    ious: Tensor
    quantiles: Tensor
    weights: Tensor

    def at(self, rows: Tensor) -> Samples:
        """Those of `rows`, int64 [m]."""
        return Samples(*(part[rows] for part in self))

    @staticmethod
    def join(some: Iterable[Samples]) -> Samples:
        """The rows of all."""
        return Samples(*(torch.cat(parts) for parts in zip(*some, strict=True)))


@dataclass(frozen=True)
class Sight:
    """A picture as the model segments it, drawn or a photograph: tokens [P, 256]; of masks, [1, P, 3], signs and what
    was measured of them."""

    drawn: bool
    tokens: Tensor
    signs: Signs
    measured: Tensor | None


def grid_points(draw: Draw, side: int, points_per_side: int) -> Tensor:
    """A grid of points, (x, y), shifted by up to half its spacing. [1, P, 2]"""
    spacing = side / points_per_side
    line = (torch.arange(points_per_side, device=draw.device) + 0.5) * spacing
    shift = draw.uniform(2, low=-spacing / 2, high=spacing / 2)
    x, y = torch.meshgrid(line + shift[0], line + shift[1], indexing="xy")
    return torch.stack([x, y], 2).view(1, -1, 2).clamp(0.5, side - 0.5)


Measure = Callable[[Tensor, Scenes], Tensor]  # masks' logits, [1, P, 3, h, h], and their picture -> [1, P, 3]


def real_ious(logits: Tensor, picture: Scenes) -> Tensor:
    """IoU of masks with the best region or union of a drawn scene, wherever it lies: a `Measure`."""
    masks, levels = logits.flatten(1, 2) > 0, picture.levels  # [1, P * 3, h, h], [1, 6, S, S]
    step = levels.shape[-1] // masks.shape[-1]
    coarse = levels[0, :, step // 2 :: step, step // 2 :: step]  # [6, h, h]
    regions = torch.cat([level == level.unique()[:, None, None] for level in coarse])
    return cross_ious(masks, regions[None])[0].amax(1).view(logits.shape[:3])


def lengths_of_stairs(logits: Tensor, picture: Scenes) -> Tensor:
    """`unseen.stairs` of masks: a `Measure`."""
    return stairs(logits, picture.images)


@torch.no_grad()
def look(
    model: SAM2Base, decoder: FoldedDecoder, picture: Scenes, points: Tensor, drawn: bool, measure: Measure | None
) -> Sight:
    """Segments one picture at `points`, float [1, P, 2]."""
    prepared = decoder.prepare(encode(model, normalise(picture.images)))
    tokens: list[Tensor] = []
    head = model.sam_mask_decoder.iou_prediction_head
    hook = head.register_forward_pre_hook(lambda _, read: tokens.append(read[0]))
    rows: list[Tensor] = []
    for some in points[0].split(_POINTS[points.device.type]):
        rows.append(predict(decoder, prepared, some, every_mask).logits)
    hook.remove()
    logits = torch.cat(rows).unflatten(0, (1, -1, MASKS))  # [1, P, 3, h, h]
    signs = read_signs(logits, points, model.image_size, 1.0)
    return Sight(drawn, torch.cat(tokens), signs, measure(logits, picture) if measure else None)


def collect(
    model: SAM2Base,
    scenes: int,
    crops: int,
    points_per_side: int,
    photographs: Photographs | None,
    of_scenes: Measure | None,
    of_crops: Measure | None,
) -> list[Sight]:
    """Segments drawn scenes, then crops of photographs, each at a grid of points that is shifted anew, and measures
    masks."""
    device = next(model.parameters()).device
    drawn_scenes = (draw_scene(seed, device) for seed in range(FIRST_SEED, FIRST_SEED + scenes))
    sources: list[tuple[Iterator[Scenes], bool, Measure | None]] = [(drawn_scenes, True, of_scenes)]
    if photographs:
        some_crops = draw_crops(range(_FIRST_CROP, _FIRST_CROP + crops), photographs.to(device))
        sources.append((some_crops, False, of_crops))
    decoder, sights = FoldedDecoder(model), list[Sight]()
    for pictures, drawn, measure in sources:
        for picture in pictures:
            points = grid_points(Draw(len(sights), device), model.image_size, points_per_side)
            sights.append(look(model, decoder, picture, points, drawn, measure))
            if len(sights) % 20 == 0:
                print(f"{len(sights)} of {scenes + crops} pictures", flush=True)
    return sights


@dataclass(frozen=True)
class Quantiles:
    """Which quantile of the IoU is predicted; 0.5 is the median."""

    drawn: float
    photographs: float

    def of(self, sight: Sight) -> Tensor:
        """That of every point of a picture, [P, 1]."""
        return sight.tokens.new_full((len(sight.tokens), 1), self.drawn if sight.drawn else self.photographs)


def _train(sights: Sequence[Sight]) -> list[Sight]:
    """What to train with: all but every seventh picture."""
    return [sight for index, sight in enumerate(sights) if index % _HELD_OUT]


def _part(sights: Sequence[Sight], quantiles: Quantiles, expect: Callable[[Sight], Tensor]) -> tuple[Samples, Samples]:
    """What to train with and what to hold out; of a picture's masks, [P, 3], the IoUs are those that `expect` gives."""

    def sample(sight: Sight) -> Samples:
        return Samples(sight.tokens, expect(sight), quantiles.of(sight), sight.signs.weights()[0])

    return Samples.join(map(sample, _train(sights))), Samples.join(map(sample, sights[::_HELD_OUT]))


def divide(sights: Sequence[Sight], quantiles: Quantiles) -> tuple[Samples, Samples]:
    """What to train with and what to hold out; experience is that of what to train with, whose drawn scenes have their
    `real_ious` measured."""
    experience = Experience.empty(sights[0].tokens.device)
    for sight in _train(sights):
        if sight.measured is not None:
            experience = experience.add(sight.signs, sight.measured, sight.measured.new_ones(1, 1))

    def expect(sight: Sight) -> Tensor:
        return (experience.expect(sight.signs) if sight.measured is None else sight.measured)[0]

    return _part(sights, quantiles, expect)


@dataclass(frozen=True)
class Stairs:
    """What a photograph's masks lose of predicted IoU: `cost` for every side of the picture that their stairs are
    longer than `free`, for good outlines cross cells, too. Masks with stairs are rare, and the median would pass them
    over, so a lower `quantile` of what is left is learned."""

    cost: float
    free: float
    quantile: float


@torch.no_grad()
def charge(head: nn.Module, sights: Sequence[Sight], price: Stairs) -> tuple[Samples, Samples]:
    """What to train with and what to hold out, of which the head, as it is, should predict the same as it does, but
    less where stairs are measured, in photographs."""

    def leave(sight: Sight) -> Tensor:
        predicted = _predict(head, sight.tokens)
        if sight.measured is None:
            return predicted
        return predicted - price.cost * (sight.measured[0] - price.free).clamp_min(0)

    return _part(sights, Quantiles(0.5, price.quantile), leave)


def _predict(head: nn.Module, tokens: Tensor) -> Tensor:
    """IoUs of a point's masks, [n, 3]."""
    return head(tokens)[:, 1 : 1 + MASKS]


def _errors(head: nn.Module, samples: Samples) -> Tensor:
    """IoU minus predicted IoU, [n, 3], NaN where it is unknown."""
    return samples.ious - _predict(head, samples.tokens)


def _loss(errors: Tensor, quantiles: Tensor, weights: Tensor) -> Tensor:
    """The weighted pinball loss of what is known, a scalar: it is least at a quantile. Twice of it, so that for the
    median it is the absolute error.

    `errors` and `weights` are [n, 3], errors NaN where nothing is known, and `quantiles` [n, 1].
    """
    losses = torch.maximum(quantiles * errors, (quantiles - 1) * errors)
    return 2 * weighted_mean(losses.nan_to_num(), torch.where(losses.isnan(), 0.0, weights))


def fit(head: nn.Module, samples: Samples, held_out: Samples, epochs: int, learning_rate: float) -> tuple[float, float]:
    """Trains the head in place, keeping the weights of the best epoch. Mean absolute error before and after.

    Both errors, and which epoch is best, are those of the samples held out.
    """
    count = len(samples.tokens)
    draw = Draw(0, samples.tokens.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    @torch.no_grad()
    def judge(quantiles: Tensor) -> float:
        return float(_loss(_errors(head, held_out), quantiles, held_out.weights))

    median = torch.full_like(held_out.quantiles, 0.5)
    before, best = judge(median), judge(held_out.quantiles)
    weights = copy.deepcopy(head.state_dict())
    for _ in range(epochs):
        for rows in draw.uniform(count).argsort().split(_BATCH):
            some = samples.at(rows)
            loss = _loss(_errors(head, some), some.quantiles, some.weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if (lost := judge(held_out.quantiles)) < best:
            best, weights = lost, copy.deepcopy(head.state_dict())
    head.load_state_dict(weights)
    return before, judge(median)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fit the demo model's predicted IoU.")
    parser.add_argument("checkpoint", type=Path, help="weights in the form that ships")
    parser.add_argument("--temperature", type=float, default=SHIPPED_TEMPERATURE, help="of the checkpoint's logits")
    parser.add_argument("--output", type=Path, default=DEMO_DIR / MODEL_TYPES["demo"].file)
    parser.add_argument(
        "--float32",
        action="store_true",
        help="write every bit, for a run after this one to read: of a rounded head it makes another one",
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--crops", type=int, default=50, help="of photographs")
    parser.add_argument("--points_per_side", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    aims = parser.add_mutually_exclusive_group()
    aims.add_argument("--quantile", type=float, default=0.5, help="of the IoU that is predicted; 0.5 is the median")
    parser.add_argument("--photograph_quantile", type=float, help="the same, in photographs (default: --quantile)")
    aims.add_argument(
        "--stairs",
        type=float,
        help="keep predicted IoU as it is, but for what masks of photographs lose for every side of the picture of "
        "outline on borders of cells where nothing is to be seen (2 leaves few such masks)",
    )
    parser.add_argument("--stairs_free", type=float, default=0.12, help="sides of the picture that cost nothing")
    parser.add_argument("--stairs_quantile", type=float, default=0.1, help="of what stairs leave, which is learned")
    parser.add_argument("--directory", type=Path, help="of training, whose outlined photographs are used again")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that segment photographs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    of_stairs = [name for name in ("stairs_free", "stairs_quantile") if getattr(args, name) != parser.get_default(name)]
    if args.stairs is None and of_stairs:
        parser.error(f"--{of_stairs[0]} says how --stairs are charged: give that, too")
    if args.stairs is not None and not args.crops:
        parser.error("--stairs is of photographs: give it some (--crops)")
    if args.stairs is not None and args.photograph_quantile is not None:
        parser.error("--stairs leaves quantiles as they are: fit --photograph_quantile in a run before")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    args = _parse(arguments)
    model = load_trained(args.checkpoint, args.temperature, SHIPPED_TEMPERATURE, torch.device(args.device))
    photographs = None
    if args.crops:
        photographs = (
            read_photographs(args.directory, args.workers) if args.directory else load_photographs(args.workers)
        )
    measures = (real_ious, None) if args.stairs is None else (None, lengths_of_stairs)
    sights = collect(model, args.scenes, args.crops, args.points_per_side, photographs, *measures)
    head = model.sam_mask_decoder.iou_prediction_head.requires_grad_(True)
    if args.stairs is not None:
        samples, held_out = charge(head, sights, Stairs(args.stairs, args.stairs_free, args.stairs_quantile))
    else:
        in_photographs = args.quantile if args.photograph_quantile is None else args.photograph_quantile
        samples, held_out = divide(sights, Quantiles(args.quantile, in_photographs))
    before, after = fit(head, samples, held_out, args.epochs, args.learning_rate)
    print(f"{len(samples.tokens)} points; held out, predicted IoU is off by {before:.3f}, then by {after:.3f}")
    export(model.state_dict(), SHIPPED_TEMPERATURE, args.output, torch.float32 if args.float32 else torch.float16)


if __name__ == "__main__":
    main()
