"""Grey textures for the surfaces of drawn scenes: noise, gratings, wood, checkers, cells, dots, bricks, photographs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.scenes.randomness import Draw

KINDS = 8  # of the drawn textures


def _coordinates(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, size, device=device)
    y, x = torch.meshgrid(line, line, indexing="ij")  # [S, S] each
    return x, y


def _noise(draw: Draw, count: int, size: int, low: float, high: float) -> Tensor:
    """Noise whose spectrum falls as frequency to the power of `low` to `high`. [n, S, S]"""
    frequency = torch.fft.fftfreq(size, device=draw.device)
    radius = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt().clamp_min(1 / size)  # [S, S]
    spectrum = torch.complex(draw.normal(count, size, size), draw.normal(count, size, size))
    return torch.fft.ifft2(spectrum / radius ** draw.uniform(count, 1, 1, low=low, high=high)).real


def _standardise(texture: Tensor) -> Tensor:
    """Mean 0 and deviation 1 for each of [n, S, S]."""
    texture = texture - texture.mean((1, 2), keepdim=True)
    return texture / texture.std((1, 2), keepdim=True).clamp_min(1e-4)


def _patterns(draw: Draw, size: int, warp: Tensor) -> list[Tensor]:
    """One texture of each regular kind, in coordinates that `warp`, [2, S, S], bends. [S, S] each"""
    x, y = _coordinates(size, draw.device)
    angle, frequency = draw.uniform(1, high=math.pi), draw.log_uniform(1, low=8, high=80)
    x, y = x + 0.03 * warp[0], y + 0.03 * warp[1]
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    wave_u, wave_v = torch.sin(frequency * u), torch.sin(frequency * v)
    row = torch.floor(frequency * v / 4)
    brick_u = torch.remainder(frequency * u / 8 + row / 2, 1)  # every second row is shifted by half a brick
    brick_v = torch.remainder(frequency * v / 4, 1)
    rings = torch.sin(frequency * (torch.hypot(u, 0.3 * v) + 0.1 * warp[0] * draw.uniform(1)) * 2)
    return [
        wave_u,
        torch.where(wave_u > draw.uniform(1, low=-0.7, high=0.7), 1.0, -1.0),
        (wave_u * wave_v).sign(),
        torch.where(wave_u * wave_v > 0.4, 1.0, -1.0),
        torch.where((brick_u > 0.06) & (brick_v > 0.12), 1.0, -1.0) + 0.2 * warp[1],
        rings,
    ]


def _cells(draw: Draw, size: int) -> Tensor:
    """Stones: distance to the nearest of many random sites. [S, S]"""
    x, y = _coordinates(size, draw.device)
    sites = draw.uniform(96, 2, 1, 1, low=-1, high=1)
    nearest = torch.full_like(x, 9.0)
    for site in sites:
        nearest = torch.minimum(nearest, (x - site[0]) ** 2 + (y - site[1]) ** 2)
    return nearest.sqrt().clamp_max(0.2)


@torch.no_grad()
def draw_textures(draw: Draw, count: int, size: int, photographs: Tensor | None = None) -> Tensor:
    """float32 [count, S, S] with mean 0 and deviation 1. `photographs`, [n, 3, H, W] from 0 to 1, lend some of them."""
    textures = _noise(draw, count, size, 0.4, 1.6)
    warps = _standardise(_noise(draw, 2 * count, size, 1.2, 1.8)).unflatten(0, (count, 2))
    for index in range(count):
        kind = index % (KINDS + 6)  # the rest stays noise
        if kind < KINDS - 2:
            textures[index] = _patterns(draw, size, warps[index])[kind]
        elif kind == KINDS - 2:
            textures[index] = _cells(draw, size)
        elif kind < KINDS + 3 and photographs is not None:
            textures[index] = _crop(draw, photographs, size)
    return _standardise(textures)


def _crop(draw: Draw, photographs: Tensor, size: int) -> Tensor:
    """The brightness of a random square of a random photograph. [S, S]"""
    which, top, left, side = (draw.uniform(4)).tolist()
    image = photographs[int(which * len(photographs))].mean(0)  # [H, W]
    side = int((0.25 + 0.6 * side) * min(image.shape))
    top, left = int(top * (image.shape[0] - side)), int(left * (image.shape[1] - side))
    square = image[None, None, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (size, size), mode="bilinear", align_corners=False)[0, 0]
