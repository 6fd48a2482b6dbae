"""What training asks of the encoder directly: pixels of one region look alike, those of two do not, edges are edges.

A click teaches one region; every pair of pixels teaches more. Each level (region, part, thing) has an embedding of
every cell of the finest features, in which distance says whether two cells belong together (De Brabandere et al. 2017,
"Semantic instance segmentation with a discriminative loss function", has the idea; the loss here is a cross entropy),
and a logit that says whether an outline runs through the cell. None of this ships.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from sam2_amg.network.encoder import ImageFeatures
from training.batch import LEVELS

_WIDTH = 16
_CHANNELS = (256, 64, 32)  # of the image embedding and of the high-resolution features, from coarse to fine
_NEAR = 2.0  # squared distance at which two pixels are as likely one region as two
_OUTLINE_WEIGHT = 4.0  # cells with an outline are few


class Dense(NamedTuple):
    """For cells of 4 x 4 pixels: `embedding` [B, 3, 16, h, w], `outline` logits [B, 3, h, w]."""

    embedding: Tensor
    outline: Tensor


class Auxiliary(nn.Module):
    """Reads what the encoder gives, at all three resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.ModuleList(nn.Conv2d(c, LEVELS * (_WIDTH + 1), 1) for c in _CHANNELS)

    def forward(self, features: ImageFeatures) -> Dense:
        """Features of B images -> what they say of every cell."""
        s0, s1 = features.high_res_features
        maps = [read(x) for read, x in zip(self.read, (features.image_embedding, s1, s0), strict=True)]
        size = maps[-1].shape[-2:]
        total = maps[-1]
        for coarse in maps[:-1]:
            total = total + F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        total = total.float().unflatten(1, (LEVELS, _WIDTH + 1))  # [B, 3, 17, h, w]
        return Dense(total[:, :, :_WIDTH], total[:, :, _WIDTH])


def pair_loss(dense: Dense, levels: Tensor, pixels: Tensor) -> Tensor:
    """Cross entropy of "same label" over all pairs of `pixels` [B, K], counted along rows; scalar.

    `levels` are [B, 3 or more, S, S], of which the first three count. Pairs that are alike weigh as much as all others.
    """
    side, cells = levels.shape[-1], dense.embedding.shape[-1]
    step = side // cells
    cell = (pixels // side // step) * cells + pixels % side // step  # [B, K]
    at = cell[:, None, None].expand(-1, LEVELS, _WIDTH, -1)
    vectors = dense.embedding.flatten(3).gather(3, at)  # [B, 3, 16, K]
    squares = vectors.square().sum(2)  # [B, 3, K]
    distance = squares[..., :, None] + squares[..., None, :] - 2 * vectors.mT @ vectors  # [B, 3, K, K]
    labels = levels[:, :LEVELS].flatten(2).gather(2, pixels[:, None].expand(-1, LEVELS, -1))  # [B, 3, K]
    same = labels[..., :, None] == labels[..., None, :]
    logits = _NEAR - distance
    alike = (F.softplus(-logits) * same).sum() / same.sum().clamp_min(1)
    apart = (F.softplus(logits) * ~same).sum() / (~same).sum().clamp_min(1)
    return (alike + apart) / 2


def outline_loss(dense: Dense, levels: Tensor) -> Tensor:
    """Cross entropy of "more than one label in this cell"; scalar. `levels` as above."""
    step = levels.shape[-1] // dense.outline.shape[-1]
    cells = levels[:, :LEVELS].unflatten(3, (-1, step)).unflatten(2, (-1, step))  # [B, 3, h, step, w, step]
    target = (cells.amax((3, 5)) != cells.amin((3, 5))).float()
    weight = 1 + (_OUTLINE_WEIGHT - 1) * target
    return F.binary_cross_entropy_with_logits(dense.outline, target, weight)
