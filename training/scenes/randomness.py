"""Seeded random numbers on a device: the one source of chance of scenes and of training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Draw:
    """Random tensors of one seed; the same seed on the same kind of device draws the same."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 from `low` to `high`."""
        return torch.rand(shape, generator=self._generator, device=self.device) * (high - low) + low

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """float32 from `low` to `high`, every octave as likely."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def normal(self, *shape: int) -> Tensor:
        """float32, standard normal."""
        return torch.randn(shape, generator=self._generator, device=self.device)

    def field(self, batch: int, channels: int, size: int, cells: int) -> Tensor:
        """float32 [batch, channels, size, size]: smooth, from normal values of `cells` x `cells`."""
        grid = self.normal(batch, channels, cells, cells)
        return F.interpolate(grid, (size, size), mode="bicubic", align_corners=False)

    def chance(self, *shape: int, of: float) -> Tensor:
        """bool, True with probability `of`."""
        return torch.rand(shape, generator=self._generator, device=self.device) < of

    def integer(self, *shape: int, below: int) -> Tensor:
        """int64 from 0 to `below` - 1."""
        return torch.randint(below, shape, generator=self._generator, device=self.device)

    def pick(self, weights: Tensor, count: int) -> Tensor:
        """`count` different columns of each row of `weights`, by weight."""
        waiting = -torch.log(1 - torch.rand(weights.shape, generator=self._generator, device=self.device))
        return (weights / waiting.clamp_min(1e-20)).topk(count, dim=1).indices
