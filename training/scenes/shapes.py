"""Closed-form shapes: blobs, polygons, rings, bent bars and cut pieces, all tested pixel by pixel."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from training.scenes.randomness import Draw

_WAVES = (2, 3, 5)  # bumps around the outline of a blob


class Shapes(NamedTuple):
    """K shapes of B images, each field [B, K, 1, 1]; lengths are in half images."""

    x: Tensor
    y: Tensor
    radius_u: Tensor
    radius_v: Tensor
    angle: Tensor
    power: Tensor  # of the superellipse: 1 is a rhombus, 2 an ellipse, 8 a rectangle
    sides: Tensor  # of a regular polygon, 0 for none
    bend: Tensor
    hole: Tensor  # radius of a hole, in radii
    cut: Tensor  # what lies beyond this is cut off, in radii
    bump_2: Tensor
    bump_3: Tensor
    bump_5: Tensor
    phase: Tensor


class Local(NamedTuple):
    """Where pixels lie in the frame of a shape: coordinates in radii, and `rho`, which is 1 on the outline."""

    u: Tensor
    v: Tensor
    rho: Tensor


def draw_shapes(draw: Draw, images: int, count: int, smallest: float, largest: float, plain: bool) -> Shapes:
    """Random shapes; `plain` ones have no holes, bends, cuts or bars."""

    def uniform(low: float, high: float) -> Tensor:
        return draw.uniform(images, count, 1, 1, low=low, high=high)

    def sometimes(share: float, value: Tensor, otherwise: float) -> Tensor:
        drawn = draw.chance(images, count, 1, 1, of=share)
        return torch.where(drawn, value, otherwise)

    fancy = 0.0 if plain else 1.0
    size = draw.log_uniform(images, count, 1, 1, low=smallest, high=largest)
    stretch = torch.exp(uniform(-0.45, 0.45))
    bar = sometimes(0.1 * fancy, torch.exp(uniform(0.7, 1.2)), 1.0)  # thin and long
    bumpy = sometimes(0.5, torch.ones_like(size), 0.0)
    upright = draw.chance(images, count, 1, 1, of=0.4)
    return Shapes(
        x=uniform(-1.05, 1.05),
        y=uniform(-1.05, 1.05),
        radius_u=size * stretch * bar,
        radius_v=(size / stretch / bar).clamp_min(0.03),
        angle=torch.where(upright, uniform(-0.1, 0.1), uniform(0, 2 * math.pi)),
        power=sometimes(0.45, uniform(5, 12), 0.0) + sometimes(1.0, uniform(1.3, 2.8), 0.0),
        sides=sometimes(0.15, torch.floor(uniform(3, 7)), 0.0),
        bend=sometimes(0.2 * fancy, uniform(-0.9, 0.9), 0.0),
        hole=sometimes(0.06 * fancy, uniform(0.3, 0.75), 0.0),
        cut=sometimes(0.2 * fancy, uniform(-0.2, 0.8), 9.0),
        bump_2=bumpy * uniform(-0.16, 0.16),
        bump_3=bumpy * uniform(-0.12, 0.12),
        bump_5=bumpy * uniform(-0.07, 0.07),
        phase=uniform(0, 2 * math.pi),
    )


def locate(shapes: Shapes, x: Tensor, y: Tensor) -> Local:
    """Pixels at `x`, `y` in the frames of shapes; everything broadcasts."""
    dx, dy = x - shapes.x, y - shapes.y
    cosine, sine = torch.cos(shapes.angle), torch.sin(shapes.angle)
    u = (dx * cosine + dy * sine) / shapes.radius_u
    v = (dy * cosine - dx * sine) / shapes.radius_v
    v = v + shapes.bend * (u * u - 0.5)
    ellipse = ((u.abs() + 1e-6) ** shapes.power + (v.abs() + 1e-6) ** shapes.power) ** (1 / shapes.power)
    around = torch.atan2(v, u + 1e-9)
    sector = math.pi / shapes.sides.clamp_min(3)
    polygon = torch.hypot(u, v) * torch.cos(torch.remainder(around, 2 * sector) - sector) / torch.cos(sector)
    bumps = (shapes.bump_2, shapes.bump_3, shapes.bump_5)
    outline = torch.ones_like(around)
    for waves, height in zip(_WAVES, bumps, strict=True):
        outline = outline + height * torch.cos(waves * around + waves * shapes.phase)
    return Local(u, v, torch.where(shapes.sides > 0, polygon, ellipse) / outline)


def contains(shapes: Shapes, x: Tensor, y: Tensor) -> Tensor:
    """Whether pixels lie inside shapes, bool [B, K, S, S], at `x`, `y` [B, 1, S, S]."""
    if x.device.type != "cpu":
        return _contains(shapes, x, y)
    # one by one, what is between takes memory that is at hand instead of new pages: twice as quick, bit for bit alike
    each = zip(*(field.split(1, 1) for field in shapes), strict=True)
    return torch.cat([_contains(Shapes(*shape), x, y) for shape in each], 1)


def _contains(shapes: Shapes, x: Tensor, y: Tensor) -> Tensor:
    local = locate(shapes, x, y)
    beyond = local.u * torch.cos(shapes.phase) + local.v * torch.sin(shapes.phase) > shapes.cut
    return (local.rho < 1) & (local.rho > shapes.hole) & ~beyond
