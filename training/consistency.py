"""How good a mask is, judged without ground truth: points inside a good mask give it again, and its edge is sharp.

What such signs are worth is learned on drawn scenes, where the real IoU is known, and applied to photographs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sam2_amg.config import GeneratorConfig

_AGREEMENT = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.88, 0.91, 0.94, 0.96, 0.98)  # limits of cells
_STABILITY = (0.7, 0.8, 0.9, 0.95, 0.98)
_ENOUGH = 20  # masks in a cell
_EPSILON = 1e-6
_GENERATOR = GeneratorConfig()  # what returns masks: its thresholds say which
_UNSTABLE = 0.02  # what an unstable mask counts, where a stable one counts 1


class Signs(NamedTuple):
    """Of the masks of points, [B, P, 3]: their mean IoU with the best masks of other points inside, stability, and how
    many masks of all points are about the same as each, itself among them.

    Agreement is NaN where no other point lies inside.
    """

    agreement: Tensor
    stability: Tensor
    alike: Tensor

    def weights(self) -> Tensor:
        """How much each mask counts, [B, P, 3]: about as often as the generator, which drops unstable ones and keeps
        one of those that are alike, returns it."""
        stable = self.stability >= _GENERATOR.stability_score_thresh
        return torch.where(stable, 1.0, _UNSTABLE) / self.alike


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Of what weighs anything, a scalar; 0 where nothing does."""
    return (weights * values).sum() / weights.sum().clamp_min(_EPSILON)


def cross_ious(masks: Tensor, others: Tensor) -> Tensor:
    """IoU of each mask with each other one, bool [B, n, h, w] and [B, m, h, w]. [B, n, m]"""
    a, b = masks.flatten(2).float(), others.flatten(2).float()
    overlap = a @ b.mT
    return overlap / (a.sum(2)[:, :, None] + b.sum(2)[:, None] - overlap).clamp_min(1)


@torch.no_grad()
def read_signs(logits: Tensor, points: Tensor, image_side: int, offset: float) -> Signs:
    """The signs of three masks a point.

    `logits` are [B, P, 3, h, h]; `points` float [B, P, 2], (x, y), in images of `image_side` x `image_side` pixels;
    stability compares the masks at `offset` and `-offset`, as the generator does.
    """
    batch, count, _, side, _ = logits.shape
    masks = (logits > 0).flatten(1, 2)  # [B, P * 3, h, h]
    crossed = cross_ious(masks, masks)  # [B, P * 3, P * 3]
    alike = (crossed > _GENERATOR.box_nms_thresh).sum(2).clamp_min(1)  # an empty mask is not even like itself
    ious = crossed.unflatten(2, (count, 3)).amax(3)  # [B, P * 3, P]: with the best mask of each point
    cell = (points * (side / image_side)).long().clamp(0, side - 1)
    cell = (cell[..., 1] * side + cell[..., 0])[:, None].expand(-1, 3 * count, -1)  # [B, P * 3, P]
    inside = masks.flatten(2).gather(2, cell).view(batch, count, 3, count)
    itself = torch.eye(count, dtype=torch.bool, device=points.device)
    weight = (inside & ~itself[:, None]).flatten(1, 2).float()
    agreement = (ious * weight).sum(2) / weight.sum(2)
    core = (logits > offset).flatten(3).sum(3)
    stability = core / (logits > -offset).flatten(3).sum(3).clamp_min(1)
    return Signs(agreement.view(batch, count, 3), stability, alike.view(batch, count, 3))


class Experience(NamedTuple):
    """How many masks with such signs were seen, and the sum of their real IoUs: `counts`, [2, cells]."""

    counts: Tensor

    @staticmethod
    def empty(device: torch.device) -> Experience:
        """Nothing seen yet."""
        return Experience(torch.zeros(2, (len(_AGREEMENT) + 1) * (len(_STABILITY) + 1), device=device))

    def _cell(self, signs: Signs) -> Tensor:
        known = ((signs.agreement.nan_to_num(), _AGREEMENT), (signs.stability, _STABILITY))
        row, column = (torch.bucketize(sign, sign.new_tensor(limits)) for sign, limits in known)
        return row * (len(_STABILITY) + 1) + column

    def add(self, signs: Signs, real: Tensor, weight: Tensor, keep: float = 1.0) -> Experience:
        """With more masks seen: real IoUs, [B, P, 3], and weights, [B, P]; older ones fade to a share of `keep`."""
        weight = weight[:, :, None] * (~signs.agreement.isnan()).float()
        new = torch.stack([weight.flatten(), (weight * real).flatten()])
        cells = self._cell(signs).flatten().expand(2, -1)
        return Experience((self.counts * keep).scatter_add(1, cells, new))

    def expect(self, signs: Signs) -> Tensor:
        """The mean real IoU of masks with such signs, [B, P, 3]; NaN where too few were seen."""
        number, total = self.counts
        mean = torch.where(number >= _ENOUGH, total / number.clamp_min(_EPSILON), torch.nan)
        return torch.where(signs.agreement.isnan(), torch.nan, mean[self._cell(signs)])
