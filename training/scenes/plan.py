"""Decides what a training scene holds, before a pixel is drawn: shapes, what they are made of, light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes.randomness import Draw
from training.scenes.shapes import Shapes, draw_shapes

_CONTRAST = 0.22  # between the colours of two things, and of a part and what it lies on, at least
CELLS = 17  # pieces that a thing can be made of: its body and a grid of up to 4 x 4
BODY, SPLIT, GRID, RINGS = range(4)


@dataclass(frozen=True)
class SceneConfig:
    """How rich scenes are. Sizes are in half images."""

    backgrounds: int = 3  # at most, beside the one behind everything
    things: int = 14  # at most
    parts: int = 8  # at most, beside what things are made of
    smallest: float = 0.1
    largest: float = 0.7
    boldest: float = 0.2  # deviation of brightness that texture gives a surface, at most
    structured: float = 0.3  # share of things made of pieces, windows or rings
    plain: bool = False  # simple outlines, no seams


class Plan(NamedTuple):
    """Everything random about B scenes, before a pixel is drawn."""

    halves: Tensor  # [B, backgrounds, 5]: angle, offset, bend, along, used
    things: Shapes
    used: Tensor  # bool [B, things, 1, 1]
    structure: Tensor  # int64 [B, things + backgrounds + 1]
    numbers: Tensor  # [B, things + backgrounds + 1, 8] for structures and shading
    parts: Shapes
    part_used: Tensor  # bool [B, parts, 1, 1]
    anchors: Tensor  # int64 [B, parts]: the pixel that a part lies on
    materials: Tensor  # [B, number of materials, 17]: colour, gradients, amplitude, tint, zoom, rest
    texture: Tensor  # int64 [B, number of materials, 3]: which, and where it begins
    warp: Tensor  # [B, 2, S, S]: how outlines are shaken
    light: Tensor  # [B, 1, S, S]
    shadow: Tensor  # [B, 1, 1]
    seam: Tensor  # [B, 1, 1]


def _draw_hues(draw: Draw, vivid: Tensor, *shape: int) -> Tensor:
    """Mostly shades of grey, as in photographs, tinted as `vivid`, [B, 1, 1], says. [B, ..., 3]"""
    tint = vivid.view(-1, *[1] * len(shape), 1)
    return draw.normal(len(vivid), *shape, 1) + tint * draw.normal(len(vivid), *shape, 3)


def draw_differences(draw: Draw, vivid: Tensor, *shape: int) -> Tensor:
    """How colours differ from those that they are to be seen against. [B, ..., 3]"""
    way = F.normalize(_draw_hues(draw, vivid, *shape), dim=-1)
    return way * draw.uniform(len(vivid), *shape, 1, low=_CONTRAST, high=0.6)


def draw_colours(draw: Draw, mood: Tensor, spread: Tensor, vivid: Tensor, count: int) -> Tensor:
    """Colours that can be told from each other: [B, count, 3] about `mood`, [B, 1, 1 or 3], by `spread`, [B, 1, 1]."""
    return _push_apart(_keep_visible(mood + spread * _draw_hues(draw, vivid, count))).clamp(0.04, 0.96)


def _keep_visible(colour: Tensor) -> Tensor:
    """Between 0.08 and 0.92: surfaces that clip to black or white would merge."""
    return 0.5 + 0.42 * torch.tanh(2 * (colour - 0.5))


def set_apart(colour: Tensor, difference: Tensor, dim: int) -> Tensor:
    """A colour that differs by `difference`, or by its opposite: whichever is nearer to grey, where there is room.

    Channels are dimension `dim`.
    """
    away = ((colour - 0.5) * difference).sum(dim, keepdim=True) > 0
    return (colour + torch.where(away, -difference, difference)).clamp(0.04, 0.96)


def _push_apart(colours: Tensor) -> Tensor:
    """Moves those of n colours [B, n, 3] that are too alike away from each other: what nobody sees, nobody can find."""
    for _ in range(8):
        way = colours[:, :, None] - colours[:, None]  # [B, n, n, 3]
        distance = way.norm(dim=3, keepdim=True).clamp_min(1e-3)
        colours = colours + 0.4 * ((_CONTRAST - distance).clamp_min(0) / distance * way).sum(2)
    return colours


def _draw_materials(
    draw: Draw, config: SceneConfig, batch: int, things: int, size: int, textures: int
) -> tuple[Tensor, Tensor]:
    """Colours, gradients and textures: of the bodies and pieces of things, then of parts.

    The colour of a part is how it differs from what it lies on.
    """
    count = things * CELLS + config.parts + 1
    vivid, spread = draw.uniform(batch, 1, 1, low=0.1, high=0.9), draw.uniform(batch, 1, 1, low=0.2, high=0.4)
    mood = draw.uniform(batch, 1, 1, low=0.3, high=0.7) + 0.2 * vivid * draw.normal(batch, 1, 3)

    body = draw_colours(draw, mood, spread, vivid, things)  # [B, things, 3]
    piece = draw_differences(draw, vivid, things, CELLS)
    piece[:, :, 0] = 0
    piece = set_apart(body[:, :, None], piece, 3).flatten(1, 2)
    part = draw_differences(draw, vivid, config.parts + 1)
    gradient = 0.1 * draw.normal(batch, count, 6)
    amplitude = draw.uniform(batch, count, 1, low=-0.25, high=config.boldest).clamp_min(0)
    tint = 1 + 0.3 * vivid * draw.normal(batch, count, 3)
    zoom = draw.log_uniform(batch, count, 1, low=0.5, high=2)
    rest = draw.uniform(batch, count, 3)
    materials = torch.cat([torch.cat([piece, part], 1), gradient, amplitude, tint, zoom, rest], 2)
    where = draw.integer(batch, count, 2, below=2 * size)
    return materials, torch.cat([draw.integer(batch, count, 1, below=textures), where], 2)


def draw_plan(draw: Draw, config: SceneConfig, batch: int, size: int, textures: int) -> Plan:
    """Decides about `batch` scenes of `size` x `size` pixels."""
    layers = config.backgrounds + config.things + 1
    number_of_things = draw.integer(batch, 1, 1, 1, below=max(config.things - 2, 1)) + 3
    index = torch.arange(config.things, device=draw.device).view(1, -1, 1, 1)
    halves = draw.uniform(batch, config.backgrounds, 5, low=-1, high=1)
    is_thing = torch.arange(layers, device=draw.device) > config.backgrounds
    structured = draw.chance(batch, layers, of=config.structured) & is_thing
    materials, texture = _draw_materials(draw, config, batch, layers, size, textures)
    shaky = draw.uniform(batch, 1, 1, 1, low=-0.02, high=0.015).clamp_min(0)
    warp = shaky * (draw.field(batch, 2, size, 8) + 0.4 * draw.field(batch, 2, size, 32))
    uneven = draw.uniform(batch, 1, 1, 1, high=0.2)
    return Plan(
        halves=halves,
        things=draw_shapes(draw, batch, config.things, config.smallest, config.largest, config.plain),
        used=index < number_of_things,
        structure=torch.where(structured, draw.integer(batch, layers, below=3) + 1, BODY),
        numbers=draw.uniform(batch, layers, 8),
        parts=draw_shapes(draw, batch, config.parts, 0.7 * config.smallest, 0.3, config.plain),
        part_used=draw.chance(batch, config.parts, 1, 1, of=0.5),
        anchors=draw.integer(batch, config.parts, below=size * size),
        materials=materials,
        texture=texture,
        warp=warp,
        light=1 + uneven * draw.field(batch, 1, size, 4),
        shadow=draw.uniform(batch, 1, 1, low=-0.3, high=0.6).clamp_min(0),
        seam=draw.uniform(batch, 1, 1, low=-1.0, high=0.0 if config.plain else 0.7).clamp_min(0),
    )
