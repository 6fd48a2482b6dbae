"""What light does to a scene: none of it is an outline, and in photographs all of it is there."""

from __future__ import annotations

import torch
from torch import Tensor

from training.scenes.randomness import Draw

_FINEST = 16  # cells of the fields that shadows and highlights are cut from
_DARKER = 0.5  # deviations: what becomes too bright loses its outlines, what becomes dark keeps them


def _on_half(draw: Draw, count: int, most: float) -> Tensor:
    """0 for every second picture, up to `most` for the others. [B, 1, 1, 1]"""
    return most * draw.uniform(count, 1, 1, 1, low=-1).clamp_min(0)


def _patches(draw: Draw, count: int, side: int, rarity: float) -> Tensor:
    """Blobs, 0 to 1, of any size, their edges sharp or soft; the higher `rarity`, the less they cover. [B, 1, S, S]"""
    coarse, fine = (draw.field(count, 1, side, cells) for cells in (4, _FINEST))
    field = coarse + 0.4 * draw.uniform(count, 1, 1, 1) * fine
    return torch.sigmoid((field - rarity) / draw.log_uniform(count, 1, 1, 1, low=0.03, high=0.6))


def relight(draw: Draw, images: Tensor, strength: float) -> Tensor:
    """Light that changes slowly from place to place, and its colour a little. `strength` is the largest deviation of
    the logarithm of brightness."""
    count, side = len(images), images.shape[-1]
    light = draw.field(count, 1, side, 4) + 0.2 * draw.field(count, 3, side, 4)
    return images * torch.exp(strength * draw.uniform(count, 1, 1, 1) * (light - _DARKER))


def cast_shadows(draw: Draw, images: Tensor, darkest: float) -> Tensor:
    """Shadows of what is not in the picture, on every second; they take away a share of the light, up to `darkest`."""
    count, side = len(images), images.shape[-1]
    depth = _on_half(draw, count, darkest)
    return images * (1 - depth * _patches(draw, count, side, 0.5))


def shine(draw: Draw, images: Tensor, brightest: float) -> Tensor:
    """Small highlights on every second picture: a share of white, up to `brightest`."""
    count, side = len(images), images.shape[-1]
    share = _on_half(draw, count, brightest)
    return torch.lerp(images, torch.ones_like(images), share * _patches(draw, count, side, 2.0))


def reflect(draw: Draw, images: Tensor, others: Tensor, strength: float) -> Tensor:
    """A faint second picture, [B, 3, S, S], over every second, as in a window; up to `strength` of its contrast."""
    share = _on_half(draw, len(images), strength)
    return images + share * (others - others.mean((2, 3), keepdim=True))


@torch.no_grad()
def illuminate(draw: Draw, images: Tensor, others: Tensor | None, strength: float) -> Tensor:
    """Images, float [B, 3, S, S] from 0 to 1, under all of this; `others` are reflected in them.

    0 leaves pictures as they are, and 1 is what photographs have.
    """
    if others is not None:
        images = reflect(draw, images, others, 0.3 * strength)
    images = relight(draw, images, 0.6 * strength)
    images = cast_shadows(draw, images, 0.7 * strength)
    return shine(draw, images, 0.6 * strength).clamp(0, 1)
