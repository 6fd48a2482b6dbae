"""What training asks of masks and of predicted IoUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.auxiliary import Dense, outline_loss, pair_loss
from training.batch import LEVELS, Batch
from training.consistency import Experience, read_signs, weighted_mean
from training.network import SHIPPED_TEMPERATURE
from training.unseen import unseen_outlines


@dataclass(frozen=True)
class LossConfig:
    """Weights. Masks are sigmoid(logits / temperature): the higher, the steeper logits become."""

    temperature: float = 8.0
    focal: float = 5.0
    dice: float = 1.0
    cross_entropy: float = 1.0
    edge: float = 0.5
    iou: float = 2.0
    spare: float = 0.2  # for what each mask is best, so that those beyond the things under a point are things, too
    smooth: float = 0.05  # for outlines where nothing is to be seen, by their length
    bent: float = 0.2  # for the same, by how suddenly they are there
    pairs: float = 1.0  # see training/auxiliary.py, as for the next
    outline: float = 0.5
    memory: float = 0.99  # share of its experience of masks that remains after a step


class Losses(NamedTuple):
    """Scalars: the loss to descend, and what to log."""

    total: Tensor
    pairs: Tensor
    outline: Tensor
    mask: Tensor
    unseen: Tensor
    bends: Tensor
    best_iou: Tensor
    iou_error: Tensor
    good: Tensor


def to_points(pixels: Tensor, side: int) -> Tensor:
    """Centres of pixels that are counted along rows: [B, P] -> float [B, P, 2], (x, y)."""
    return torch.stack([pixels % side, pixels // side], 2).float() + 0.5


def region_targets(levels: Tensor, pixels: Tensor, side: int) -> Tensor:
    """How much of each cell the regions under points cover: [B * P, L, side, side], from 0 to 1.

    `levels` are [B, L, S, S]; `pixels` [B, P] count along rows.
    """
    labels = levels.flatten(2).gather(2, pixels[:, None].expand(-1, levels.shape[1], -1))  # [B, L, P]
    same = levels[:, None] == labels.transpose(1, 2)[..., None, None]  # [B, P, L, S, S]
    return F.avg_pool2d(same.float().flatten(0, 1), levels.shape[-1] // side)


def _edge_weights(targets: Tensor) -> Tensor:
    """Shares that add up to 1 over the cells near the outline of each target."""
    highest = F.max_pool2d(targets, 3, 1, 1)
    lowest = -F.max_pool2d(-targets, 3, 1, 1)
    near = ((highest - lowest) > 0.02).float()
    return near / near.sum((2, 3), keepdim=True).clamp_min(1)


def mask_costs(logits: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """The loss of every mask against every target, [N, masks, targets].

    All terms but focal are least where a cell's probability is the share of it that the target covers, so that the
    line where upsampled logits are 0 runs through cells as the outline does.
    """
    x = (logits / config.temperature)[:, :, None]  # [N, M, 1, h, w]
    t, edge = targets[:, None], _edge_weights(targets)[:, None]  # [N, 1, T, h, w]
    p = torch.sigmoid(x)
    entropy = F.softplus(x) - x * t
    miss = (p - t) ** 2
    overlap, squares = (p * t).sum((3, 4)), (p * p + t * t).sum((3, 4))
    area = t.sum((3, 4))
    cost = config.focal * (entropy * miss).mean((3, 4))
    cost = cost + config.dice * (1 - (2 * overlap + 1) / (squares + 1))
    cost = cost + config.cross_entropy * entropy.mean((3, 4))
    if config.edge:
        cost = cost + config.edge * (entropy * edge).sum((3, 4))
        cost = cost + 0.1 * config.edge * entropy.sum((3, 4)) / (area + 50)
    return cost


@torch.no_grad()
def real_ious(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of masks, by their cells, with regions that cover half a cell or more. [N, masks, targets]

    `logits` are [N, masks, h, w]; `targets` [N, targets, h, w] are shares of cells.
    """
    masks, regions = (x.flatten(2).float() for x in (logits > 0, targets >= 0.5))
    overlap = masks @ regions.mT  # of zeros and ones: exact in TF32, too
    union = masks.sum(2)[:, :, None] + regions.sum(2)[:, None] - overlap
    return overlap / union.clamp_min(1)


def losses(
    logits: Tensor, iou: Tensor, dense: Dense, batch: Batch, config: LossConfig, experience: Experience
) -> tuple[Losses, Experience]:
    """The losses of one batch: `logits` [B * P, 3, h, h] and predicted `iou` [B * P, 3] of its points.

    Each of the islands under a point wants one mask. Of what is drawn, IoUs with all levels are the truth; in
    photographs they are what experience expects; `experience` comes back with the masks of what is drawn added.
    """
    count, side, known = len(batch.levels), batch.levels.shape[-1], batch.known()
    targets = region_targets(batch.levels, batch.pixels, logits.shape[-1])  # [N, 6, h, h]
    costs = mask_costs(logits, targets[:, :LEVELS], config)
    mask = costs.min(1).values.mean() + config.spare * costs.min(2).values.mean()
    real = real_ious(logits, targets)  # [N, M, 6]
    best = real.amax(2).unflatten(0, (count, -1))
    offset = config.temperature / SHIPPED_TEMPERATURE
    signs = read_signs(logits.detach().unflatten(0, (count, -1)), to_points(batch.pixels, side), side, offset)
    experience = experience.add(signs, best, known.float(), config.memory)
    expected = torch.where(known[:, :, None], best, experience.expect(signs)).flatten(0, 1)
    weights = torch.where(expected.isnan(), 0.0, signs.weights().flatten(0, 1))
    off = (iou - expected.nan_to_num()).abs()
    iou_error = weighted_mean(off, weights)
    iou_loss = iou_error + 2 * weighted_mean(off * off, weights)
    pairs, outline = pair_loss(dense, batch.levels, batch.compared), outline_loss(dense, batch.levels)
    unseen = unseen_outlines(logits, batch.images, config.temperature)
    covered = real[:, :, :LEVELS].amax(1)
    result = Losses(
        total=mask
        + config.smooth * unseen.length
        + config.bent * unseen.bends
        + config.iou * iou_loss
        + config.pairs * pairs
        + config.outline * outline,
        pairs=pairs.detach(),
        outline=outline.detach(),
        mask=mask.detach(),
        unseen=unseen.length.detach(),
        bends=unseen.bends.detach(),
        best_iou=covered.mean(),
        iou_error=iou_error.detach(),
        good=(covered > 0.8).float().mean(),
    )
    return result, experience
