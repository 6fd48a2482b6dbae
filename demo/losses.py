"""What training asks of masks and of predicted IoUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.consistency import Experience, read_signs
from demo.network import SHIPPED_TEMPERATURE

TARGETS = 3  # levels that masks are to show; further ones make a mask right, too


@dataclass(frozen=True)
class LossConfig:
    """Weights. Masks are sigmoid(logits / temperature): the higher, the steeper logits become."""

    temperature: float = 8.0
    focal: float = 5.0
    dice: float = 1.0
    cross_entropy: float = 1.0
    edge: float = 0.5
    iou: float = 2.0
    spare: float = 0.03  # for masks that are nobody's best, so that none dies
    memory: float = 0.99  # share of its experience of masks that remains after a step


class Losses(NamedTuple):
    """Scalars: the loss to descend, and what to log."""

    total: Tensor
    mask: Tensor
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
def real_ious(logits: Tensor, levels: Tensor, pixels: Tensor, side: int) -> Tensor:
    """IoU of upsampled masks with regions, at `side` x `side` pixels. [N, masks, targets]"""
    masks = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)[:, :, None] > 0
    targets = region_targets(levels, pixels, side)[:, None] >= 0.5
    overlap = (masks & targets).float().sum((3, 4))
    union = (masks | targets).float().sum((3, 4))
    return overlap / union.clamp_min(1)


def losses(
    logits: Tensor,
    iou: Tensor,
    levels: Tensor,
    pixels: Tensor,
    drawn: Tensor,
    config: LossConfig,
    experience: Experience,
) -> tuple[Losses, Experience]:
    """The first `TARGETS` of the levels want one mask each. Where images are `drawn`, [B], IoUs with all are the truth.

    In photographs they are what experience expects; `experience` comes back with the masks of drawn images added.
    """
    batch, side = len(levels), levels.shape[-1]
    costs = mask_costs(logits, region_targets(levels[:, :TARGETS], pixels, logits.shape[-1]), config)
    mask = costs.min(1).values.mean() + config.spare * costs.min(2).values.mean()
    real = real_ious(logits, levels, pixels, min(2 * logits.shape[-1], side))  # [N, M, T]
    best = real.amax(2)
    offset = config.temperature / SHIPPED_TEMPERATURE
    signs = read_signs(logits.detach().unflatten(0, (batch, -1)), to_points(pixels, side), side, offset)
    experience = experience.add(signs, best.unflatten(0, (batch, -1)), drawn, config.memory)
    expected = torch.where(drawn[:, None, None] > 0, best.unflatten(0, (batch, -1)), experience.expect(signs))
    expected = expected.flatten(0, 1)
    off = torch.where(expected.isnan(), 0.0, (iou - expected.nan_to_num()).abs())
    iou_loss = (off + 2 * off * off).sum() / (~expected.isnan()).sum().clamp_min(1)
    covered = real[:, :, :TARGETS].amax(1)
    result = Losses(
        mask + config.iou * iou_loss, mask.detach(), covered.mean(), off.detach().mean(), (covered > 0.8).float().mean()
    )
    return result, experience
