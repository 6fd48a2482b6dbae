"""What a camera does to a picture: blur, exposure, sensor noise, compression."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes.randomness import Draw


def _dct_matrix(device: torch.device) -> Tensor:
    """The orthonormal 8-point cosine transform, [8, 8]."""
    k = torch.arange(8, device=device, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _compress(images: Tensor, step: Tensor) -> Tensor:
    """Rounds the cosine transform of 8 x 8 blocks, as JPEG does, more coarsely for fine detail. [B, 3, S, S]"""
    dct = _dct_matrix(images.device)
    blocks = images.unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # [B, 3, S/8, 8, S/8, 8]
    spectrum = torch.einsum("ui,bcyixj,vj->bcyuxv", dct, blocks, dct)
    order = torch.arange(8, device=images.device, dtype=torch.float32)
    table = step.view(-1, 1, 1, 1, 1, 1) * (1 + order[:, None, None] + order)  # [B, 1, 1, 8, 1, 8]
    spectrum = torch.round(spectrum / table) * table
    return torch.einsum("ui,bcyuxv,vj->bcyixj", dct, spectrum, dct).flatten(4).flatten(2, 3)


def _blur(images: Tensor) -> Tensor:
    """Three pixels wide, binomial weights."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


@torch.no_grad()
def photograph(draw: Draw, images: Tensor, strength: float = 1.0) -> Tensor:
    """Images, float [B, 3, S, S] from 0 to 1, as a random camera sees them; `strength` 0 only blurs a little."""
    count = len(images)

    def per_image(low: float, high: float) -> Tensor:
        return draw.uniform(count, 1, 1, 1, low=low, high=high)

    once = _blur(images)
    twice = _blur(_blur(once))
    out_of_focus = (per_image(-0.5, 0.9) * strength).clamp_min(0)
    images = torch.lerp(images, once, per_image(0.3, 1.3).clamp_max(1))  # drawn edges are hard, real ones are not
    images = torch.lerp(images, twice, out_of_focus)
    colour = 1 + 0.07 * strength * draw.normal(count, 3, 1, 1)
    images = (images.clamp(1e-3, 1) ** torch.exp(per_image(-0.3, 0.3) * strength)) * colour
    images = (images - 0.5) * (1 + per_image(-0.3, 0.1) * strength) + 0.5 + per_image(-0.06, 0.06) * strength
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(images, grey, draw.chance(count, 1, 1, 1, of=0.05).float())
    noise = draw.normal(*images.shape)
    images = images + 0.05 * strength * per_image(0, 1) ** 2 * (0.5 + images.clamp(0, 1)) * noise
    compressed = _compress(images.clamp(0, 1), draw.log_uniform(count, low=0.004, high=0.04))
    keep = draw.chance(count, 1, 1, 1, of=1 - 0.6 * strength)
    return torch.where(keep, images, compressed).clamp(0, 1)
