"""Where nothing is to be seen: outlines of masks between neighbouring cells of one colour."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_SEEN = 0.03  # deviation, from 0 to 1: neighbouring cells whose colours are three times as far apart have an edge
BORDER = 4  # every so many cells of a mask one of the image embedding ends
_BESIDE = 3.0  # what a bend beside such a border counts, where others count 1


def _colours(images: Tensor, side: int) -> Tensor:
    """Of cells: [B, 3, S, S] -> [B, 3, side, side]."""
    return F.avg_pool2d(images, images.shape[-1] // side)


def _alike(colours: Tensor) -> Tensor:
    """How much neighbours in a row have one colour, from 0 to 1: [B, 3, h, h] -> [B, 1, 1, h, h - 1]."""
    return torch.exp(-colours.diff().square().sum(1) / (2 * _SEEN**2))[:, None, None]


class Unseen(NamedTuple):
    """Outlines of masks where neighbouring cells have one colour, in sides of the picture: their length, and how much
    masks bend there. Scalars."""

    length: Tensor
    bends: Tensor


def _beside_borders(side: int, like: Tensor) -> Tensor:
    """What bends count, at each cell of a row but the first and last: 1 on average. [side - 2]"""
    place = torch.arange(1, side - 1, device=like.device) % BORDER
    beside = torch.where((place == 0) | (place == BORDER - 1), _BESIDE, 1.0).to(like)
    return beside * BORDER / (2 * _BESIDE + BORDER - 2)


def unseen_outlines(logits: Tensor, images: Tensor, temperature: float) -> Unseen:
    """Of masks, where nothing is to be seen: the mean length of their outlines, and how much they bend.

    What no edge holds falls along the coarse cells of the image embedding. `logits` are [B * P, masks, h, h] of
    `images`, [B, 3, S, S]. Tang et al. 2018, "On regularized losses for weakly-supervised CNN segmentation", has the
    idea; here it is the length alone (Potts' model, relaxed), and only between neighbours.

    Length alone does not mind stairs. Second differences do (Chan, Marquina, Mulet 2000, "High-order total
    variation-based image restoration"): what rises evenly costs nothing, a step twice its height; and beside borders of
    the embedding's cells more, so that no outline is better there than within them.
    """
    count, side = len(images), logits.shape[-1]
    colours = _colours(images, side)
    inside = torch.sigmoid(logits / temperature).unflatten(0, (count, -1))  # [B, P, M, h, h]
    length, bends = inside.new_zeros(()), inside.new_zeros(())
    for rows, shown in ((inside, colours), (inside.mT, colours.mT)):
        alike, change = _alike(shown), rows.diff()  # [B, 1, 1, h, h - 1], [B, P, M, h, h - 1]
        length = length + (alike * change.abs()).sum((3, 4)).mean()
        of_three = alike[..., 1:] * alike[..., :-1]
        bends = bends + (of_three * _beside_borders(side, rows) * change.diff().abs()).sum((3, 4)).mean()
    return Unseen(length / side, bends / side)


@torch.no_grad()
def stairs(logits: Tensor, images: Tensor) -> Tensor:
    """How much of each mask's outline runs along borders of the image embedding's cells where nothing is to be seen, in
    sides of the picture: [B, P, masks, h, h] of `images`, [B, 3, S, S] -> [B, P, masks]."""
    side = logits.shape[-1]
    colours, inside = _colours(images, side), (logits > 0).float()
    length = inside.new_zeros(inside.shape[:3])
    for rows, shown in ((inside, colours), (inside.mT, colours.mT)):
        unseen = _alike(shown) * rows.diff().abs()  # [B, P, M, h, h - 1]
        length = length + unseen[..., BORDER - 1 :: BORDER].sum((3, 4))
    return length / side
