"""Tells apart the islands of a region that other things cut up."""

from __future__ import annotations

import torch
from torch import Tensor


def _least_neighbour(numbers: Tensor, labels: Tensor) -> Tensor:
    """The least of a pixel's own number and those of its four neighbours with the same label. [N, S, S]"""
    least = numbers.clone()
    for axis in (1, 2):
        length = labels.shape[axis] - 1
        same = labels.narrow(axis, 0, length) == labels.narrow(axis, 1, length)
        for mine, other in ((0, 1), (1, 0)):
            own = least.narrow(axis, mine, length)
            theirs = numbers.narrow(axis, other, length)
            own.copy_(torch.where(same, torch.minimum(own, theirs), own))
    return least


def with_islands(levels: Tensor) -> Tensor:
    """Labels of islands, then those given: [B, L, S, S] -> [B, 2 L, S, S].

    Masks are to be islands; but one of a whole thing behind another is right, too.
    """
    return torch.cat([split_islands(levels), levels], 1)


@torch.no_grad()
def split_islands(levels: Tensor) -> Tensor:
    """Labels [B, L, S, S] in which every connected piece of equal labels has a number of its own, int64.

    Pixels point at one of their island, at first at themselves. In each round a pixel that is pointed at takes over
    the least number next to those that point at it, then chains of pointers are cut short: a dozen rounds will do.
    An island's number is the index of its first pixel, so islands of a fine level lie within those of a coarser one.
    """
    labels = levels.flatten(0, 1)  # [N, S, S]
    pointers = torch.arange(labels[0].numel(), device=labels.device).expand(len(labels), -1).clone()  # [N, S * S]
    while True:
        least = _least_neighbour(pointers.view_as(labels), labels).flatten(1)
        if torch.equal(least, pointers):
            return pointers.view_as(levels)
        pointers = pointers.scatter_reduce(1, pointers, least, "amin")
        for _ in range(3):
            pointers = pointers.gather(1, pointers)
