"""Draws training scenes with ground truth: backgrounds, things that overlap and touch, their parts and parts of those.

Every pixel has three labels: its region (the smallest part), the part that this region belongs to, and the thing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes.plan import CELLS, GRID, RINGS, SPLIT, Plan, SceneConfig, draw_plan, set_apart
from training.scenes.shapes import Local, Shapes, contains, locate

__all__ = ["SceneConfig", "Scenes", "draw_plan", "paint"]


class Scenes(NamedTuple):
    """`images` float32 [B, 3, S, S] from 0 to 1; `levels` int64 [B, 3, S, S]: region, part, thing."""

    images: Tensor
    levels: Tensor


def _grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y of pixel centres, -1 to 1. [1, 1, S, S]"""
    line = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    return line.view(1, 1, 1, -1).expand(1, 1, size, size), line.view(1, 1, -1, 1).expand(1, 1, size, size)


def _lay_things(plan: Plan, x: Tensor, y: Tensor) -> Tensor:
    """Which background or thing lies on top of each pixel, int64 [B, S, S]; 0 is behind everything."""
    angle, offset, bend, along, used = plan.halves[:, :, :, None, None].unbind(2)  # [B, K, 1, 1]
    angle = torch.where(along > 0.4, along * 3.14, 1.57 + 0.2 * angle)  # mostly horizons
    across = x * torch.cos(angle) + y * torch.sin(angle)
    lengthwise = y * torch.cos(angle) - x * torch.sin(angle)
    behind = (across + 0.3 * bend * lengthwise**2 > 0.8 * offset) & (used > -0.2)
    count = plan.halves.shape[1]
    device = x.device
    backgrounds = (behind * torch.arange(1, count + 1, device=device).view(1, -1, 1, 1)).amax(1)
    things = contains(plan.things, x, y) & plan.used
    order = torch.arange(count + 1, count + 1 + things.shape[1], device=device).view(1, -1, 1, 1)
    return torch.maximum(backgrounds, (things * order).amax(1))


def of_pixel(values: Tensor, labels: Tensor) -> Tensor:
    """Row `labels` of `values`: [B, n, C] at [B, S, S] -> [B, C, S, S]."""
    flat = labels.flatten(1)[:, :, None].expand(-1, -1, values.shape[2])
    return values.gather(1, flat).unflatten(1, labels.shape[1:]).permute(0, 3, 1, 2)


def _local_frame(plan: Plan, thing: Tensor, x: Tensor, y: Tensor) -> Local:
    """Pixels in the frame of the thing that they show; backgrounds have that of the whole image."""
    fields = torch.stack([field[:, :, 0, 0] for field in plan.things], 2)  # [B, K, fields]
    neutral = torch.zeros_like(fields[:, :1])
    neutral[..., 2:4] = 1  # radii
    neutral[..., 5] = 2  # power
    neutral = neutral.expand(-1, plan.halves.shape[1] + 1, -1)
    mine = of_pixel(torch.cat([neutral, fields], 1), thing)  # [B, fields, S, S]
    return locate(Shapes(*(mine[:, i] for i in range(mine.shape[1]))), x[:, 0], y[:, 0])


def find_panes(u: Tensor, v: Tensor, columns: Tensor, rows: Tensor, margin: Tensor, most: int) -> Tensor:
    """The pane that lies at `u`, `v`, from -1 to 1, of a grid of `most` x `most` panes at most; from 1, or 0 for none.

    `margin` is what is left free at each side of a pane, in panes. All are [B, S, S]; int64.
    """
    across, down = (u + 0.9) / 1.8 * columns, (v + 0.9) / 1.8 * rows
    inside = torch.maximum((across % 1 - 0.5).abs(), (down % 1 - 0.5).abs()) < 0.5 - margin
    inside &= (across >= 0) & (across < columns) & (down >= 0) & (down < rows)
    last = most - 1
    return torch.where(inside, 1 + across.floor().clamp(0, last) + most * down.floor().clamp(0, last), 0).long()


def _divide(plan: Plan, thing: Tensor, local: Local) -> tuple[Tensor, Tensor]:
    """The piece of its thing that each pixel lies on, 0 for the body, and that piece with what lies on it."""
    numbers = of_pixel(plan.numbers, thing)  # [B, 8, S, S]
    structure = of_pixel(plan.structure[:, :, None], thing)[:, 0]
    upright = torch.where(numbers[:, 0] < 0.5, local.u, local.v)
    split = (upright > 1.2 * numbers[:, 1] - 0.6).long() + (upright > 0.3 + 0.6 * numbers[:, 2]).long()
    columns, rows = torch.floor(1 + 3.99 * numbers[:, 3]), torch.floor(1 + 2.99 * numbers[:, 4])
    panes = find_panes(local.u, local.v, columns, rows, 0.06 + 0.2 * numbers[:, 5], 4)
    grid = torch.where(local.rho < 0.9, panes, 0)
    rim = 0.45 + 0.45 * numbers[:, 6]
    rings = (local.rho < rim).long() + (local.rho < rim * (0.3 + 0.5 * numbers[:, 7])).long()
    piece = torch.where(structure == SPLIT, split, 0)
    piece = torch.where(structure == GRID, grid, piece)
    return torch.where(structure == RINGS, rings, piece), torch.where(structure == RINGS, rings.clamp_max(1), piece)


def _label(plan: Plan, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Local]:
    """The labels [B, 3, S, S] of every pixel, the piece [B, S, S] under it, and its place in the frame of its thing."""
    thing = _lay_things(plan, x, y)
    local = _local_frame(plan, thing, x, y)
    piece, whole_piece = _divide(plan, thing, local)
    pieces = thing * CELLS + piece  # [B, S, S]
    host = pieces.flatten(1).gather(1, plan.anchors)[:, :, None, None]  # [B, P, 1, 1]
    size = thing.shape[1]
    line = x[0, 0, 0]
    anchor_x, anchor_y = line[plan.anchors % size], line[plan.anchors // size]
    centred = plan.parts._replace(x=anchor_x[:, :, None, None], y=anchor_y[:, :, None, None])
    inside = contains(centred, x, y) & plan.part_used & (pieces[:, None] == host)
    order = torch.arange(1, inside.shape[1] + 1, device=x.device).view(1, -1, 1, 1)
    part = (inside * order).amax(1)  # [B, S, S]
    layers = plan.structure.shape[1]
    region = torch.where(part > 0, layers * CELLS + part, pieces)
    return torch.stack([region, thing * CELLS + whole_piece, thing], 1), pieces, local


def sample_textures(textures: Tensor, which: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Of `textures` [n, S, S] the one that `which` [B, 3, S, S] names, from where it says on, at `y`, `x` [B, S, S] in
    pixels; beyond its end it is mirrored. [B, S, S]"""
    size = textures.shape[1]

    def mirrored(position: Tensor, begin: Tensor) -> Tensor:
        return ((position + begin) % (2 * size) - size).abs().long().clamp(0, size - 1)

    return textures[which[:, 0], mirrored(y, which[:, 1]), mirrored(x, which[:, 2])]


def _surface(plan: Plan, levels: Tensor, pieces: Tensor, local: Local, textures: Tensor) -> Tensor:
    """Colours of surfaces without light. [B, 3, S, S]"""
    size = levels.shape[2]
    alike = of_pixel(plan.numbers, levels[:, 2])[:, 1] < 0.7  # windows of a thing are mostly of one material
    cell = pieces % CELLS
    windows = of_pixel(plan.structure[:, :, None], levels[:, 2])[:, 0] == GRID
    below = torch.where(alike & windows, pieces - cell + cell.clamp_max(1), pieces)  # the material of the piece
    is_part = levels[:, 0] != pieces
    index = torch.where(is_part, levels[:, 0], below)
    material = of_pixel(plan.materials, index)  # [B, C, S, S]
    host = of_pixel(plan.materials[..., :3], below)
    base = torch.where(is_part[:, None], set_apart(host, material[:, :3], 1), material[:, :3])
    texture = of_pixel(plan.texture, index)  # [B, 3, S, S]
    line = torch.arange(size, device=levels.device)
    zoom = material[:, 13]
    grain = sample_textures(textures, texture, line[:, None] * zoom, line * zoom)
    u, v = local.u.clamp(-1.5, 1.5)[:, None], local.v.clamp(-1.5, 1.5)[:, None]
    colour = base + material[:, 3:6] * u + material[:, 6:9] * v
    return colour + (grain * material[:, 9])[:, None] * material[:, 10:13]


def _soften(values: Tensor, radius: int) -> Tensor:
    """Mean of zeros and ones over a square: rows, then columns, which are sums of whole numbers. [B, 1, S, S]"""
    side = 2 * radius + 1
    rows = F.avg_pool2d(F.pad(values, (radius,) * 4, mode="replicate"), (1, side), 1, divisor_override=1)
    return F.avg_pool2d(rows, (side, 1), 1, divisor_override=1) / side**2


def _illuminate(plan: Plan, colours: Tensor, levels: Tensor, local: Local) -> Tensor:
    """Round things are lit from one side, things cast soft shadows on what lies behind them, seams are dark."""
    thing = levels[:, 2]
    numbers = of_pixel(plan.numbers, thing)  # [B, 8, S, S]
    height = (1 - local.rho.clamp(0, 1) ** 2).sqrt()
    facing = (numbers[:, 2] - 0.5) * local.u + (numbers[:, 3] - 0.5) * local.v + 0.6 * (height - 0.6)
    round_ = (numbers[:, 5] - 0.6).clamp_min(0) * 1.8 * (thing > plan.halves.shape[1])
    shading = 1 + round_ * facing.clamp(-1.2, 1.2)
    offset = max(thing.shape[1] // 80, 1)
    shade = (thing.roll((offset, offset // 2), (1, 2)) > thing).float()[:, None]
    region = levels[:, 0]
    seam = ((region != region.roll(1, 1)) | (region != region.roll(1, 2))).float()[:, None]
    dark = 1 - plan.shadow[:, None] * _soften(shade, offset) * 1.2
    return (
        colours * shading[:, None] * plan.light * dark * (1 - plan.seam[:, None] * _soften(seam, 1) * 1.5).clamp_min(0)
    )


def paint(plan: Plan, textures: Tensor) -> Scenes:
    """Draws what was planned; nothing here is random. `textures` are [n, S, S]."""
    x, y = _grid(textures.shape[1], textures.device)
    x, y = x + plan.warp[:, :1], y + plan.warp[:, 1:]
    levels, pieces, local = _label(plan, x, y)
    colours = _surface(plan, levels, pieces, local, textures)
    return Scenes(_illuminate(plan, colours, levels, local).clamp(0, 1), levels)
