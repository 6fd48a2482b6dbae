"""Draws scenes in space with ground truth: solids on a floor, before walls or sky, lit by a lamp that casts shadows.

What the flat scenes of `scenes.py` lack: perspective, faces of one thing as bright as they are turned to the light,
surfaces that become darker from place to place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes.plan import draw_colours, draw_differences, set_apart
from training.scenes.randomness import Draw
from training.scenes.scenes import Scenes, find_panes, of_pixel, sample_textures
from training.scenes.solids import BOX, CYLINDER, FACES, Solids, distances, surface

_SOLIDS = 9  # at most
_SKY, _FLOOR, _WALL, _SIDE_WALL, _FIRST = range(5)  # surfaces; solids follow
_SURFACES = _FIRST + _SOLIDS
_PANES = 3  # columns and rows of them on a face, at most
_LAMPS = 3  # places of one lamp: edges of shadows become soft
_SEAM = 0.025  # metres that it is wide
_LENGTH = 3.0  # metres that a floor or wall is divided by


class Room(NamedTuple):
    """Everything random about B scenes. Lengths are in metres, y is upward, z away from the camera."""

    solids: Solids
    camera: Tensor  # [B, 1, 3, 1, 1]
    pitch: Tensor  # [B, 1, 1, 1]: how far the camera looks down
    focal: Tensor  # [B, 1, 1, 1], in half images
    walls: Tensor  # [B, 2, 4]: normal, and distance from the camera; inf for none
    height: Tensor  # [B, 1, 1, 1] of the walls
    lamps: Tensor  # [B, lamps, 3, 1, 1]
    light: Tensor  # [B, 3, 1, 1, 1]: ambient, strength of shadows, how fast light falls off
    materials: Tensor  # [B, surfaces, 9]: colour, difference of panes, texture's amplitude, zoom, gloss
    texture: Tensor  # int64 [B, surfaces, 3]: which, and where it begins
    panes: Tensor  # [B, surfaces, 3]: rows, columns, margin
    paned: Tensor  # bool [B, surfaces * FACES, 1]
    seams: Tensor  # [B, surfaces, 3]: metres between them, across and up; the share of light that they take


def _draw_solids(draw: Draw, batch: int, focal: Tensor) -> Solids:
    """Things on the floor, every second sometimes on the one before; those not used are deep below it."""
    shape = (batch, _SOLIDS, 1)
    kind = draw.integer(*shape, below=CYLINDER + 1)
    half = draw.log_uniform(*shape, low=0.15, high=1.3) * torch.exp(draw.uniform(batch, _SOLIDS, 3, low=-0.5, high=0.5))
    half[..., 2:] = torch.where(kind == BOX, half[..., 2:], half[..., :1])  # seen from above, others are round
    away = draw.uniform(*shape, low=1.4, high=6.5)
    place = torch.cat([draw.uniform(*shape, low=-1, high=1) * away / focal, half[..., 1:2], away], 2)
    stacked = draw.chance(batch, _SOLIDS // 2, 1, of=0.3)
    below, top = place[:, :-1:2].clone(), half[:, :-1:2, 1]
    on_top = below + torch.stack([torch.zeros_like(top), top + half[:, 1::2, 1], torch.zeros_like(top)], 2)
    place[:, 1::2] = torch.where(stacked, on_top, place[:, 1::2])
    used = torch.arange(_SOLIDS, device=draw.device) < draw.integer(batch, 1, below=_SOLIDS - 3) + 4
    place[..., 1] -= torch.where(used, 0.0, 100.0)
    yaw = draw.uniform(*shape, low=-0.8, high=0.8)
    return Solids(*(field[..., None, None] for field in (place, half, yaw, kind)))


def _draw_walls(draw: Draw, batch: int) -> Tensor:
    """A wall behind everything, and one beside it that meets it at a right angle; either can be missing."""
    angle = draw.uniform(batch, low=-0.6, high=0.6)
    side = torch.where(draw.chance(batch, of=0.5), -1.0, 1.0)
    sine, cosine, zero = torch.sin(angle), torch.cos(angle), torch.zeros_like(angle)
    normals = torch.stack(
        [torch.stack([sine, zero, cosine], 1), torch.stack([side * cosine, zero, -side * sine], 1)], 1
    )
    far = torch.stack([draw.uniform(batch, low=4, high=12), draw.uniform(batch, low=1.5, high=5)], 1)
    there = torch.stack([draw.chance(batch, of=0.75), draw.chance(batch, of=0.4)], 1)
    return torch.cat([normals, torch.where(there, far, torch.inf)[..., None]], 2)


def _draw_materials(draw: Draw, batch: int) -> Tensor:
    """Of every surface, as `Room.materials` has them; some solids are of another's colour."""
    vivid = draw.uniform(batch, 1, 1, low=0.05, high=0.6)
    spread = draw.uniform(batch, 1, 1, low=0.2, high=0.4)
    mood = draw.uniform(batch, 1, 1, low=0.4, high=0.75)
    colour = draw_colours(draw, mood, spread, vivid, _SURFACES)
    twin = draw.integer(batch, _SURFACES, 1, below=_SOLIDS) + _FIRST  # things apart can be of one colour
    alike = draw.chance(batch, _SURFACES, 1, of=0.2)
    colour = torch.where(alike, colour.gather(1, twin.expand(-1, -1, 3)), colour)
    difference = draw_differences(draw, vivid, _SURFACES)
    amplitude = draw.uniform(batch, _SURFACES, 1, low=-0.2, high=0.25).clamp_min(0)
    zoom = draw.log_uniform(batch, _SURFACES, 1, low=60, high=300)  # pixels a metre
    gloss = draw.uniform(batch, _SURFACES, 1, low=-0.5, high=0.6).clamp_min(0)
    return torch.cat([colour, difference, amplitude, zoom, gloss], 2)


def _draw_seams(draw: Draw, batch: int) -> Tensor:
    """Of tiles, planks and plates, as `Room.seams` has them; every second surface has none."""
    metres = draw.log_uniform(batch, _SURFACES, 2, low=0.25, high=2)
    return torch.cat([metres, draw.uniform(batch, _SURFACES, 1, low=-0.4, high=0.4).clamp_min(0)], 2)


def draw_room(draw: Draw, batch: int, size: int, textures: int) -> Room:
    """Decides about `batch` scenes of `size` x `size` pixels."""
    focal = draw.uniform(batch, 1, 1, low=1.0, high=2.4)
    height = draw.uniform(batch, 1, low=0.5, high=2.5)
    lamp = torch.stack([draw.uniform(batch, 1, low=a, high=b) for a, b in ((-6, 6), (2.5, 8), (-3, 6))], 2)
    lamps = lamp + draw.uniform(batch, 1, 1, high=0.3) * draw.normal(batch, _LAMPS, 3)
    light = torch.stack([draw.uniform(batch, low=a, high=b) for a, b in ((0.35, 0.75), (0.3, 1), (0, 1.2))], 1)
    panes = torch.cat(
        [draw.integer(batch, _SURFACES, 2, below=_PANES) + 1.0, draw.uniform(batch, _SURFACES, 1, high=0.3)], 2
    )
    where = draw.integer(batch, _SURFACES, 2, below=2 * size)
    return Room(
        solids=_draw_solids(draw, batch, focal),
        camera=F.pad(height[:, :, None, None, None], (0, 0, 0, 0, 1, 1)),
        pitch=draw.uniform(batch, 1, 1, 1, high=0.45) * height[..., None, None].clamp(0.6, 2),
        focal=focal[..., None],
        walls=_draw_walls(draw, batch),
        height=draw.uniform(batch, 1, 1, 1, low=2, high=9),
        lamps=lamps[..., None, None],
        light=light[..., None, None, None],
        materials=_draw_materials(draw, batch),
        texture=torch.cat([draw.integer(batch, _SURFACES, 1, below=textures), where], 2),
        panes=panes,
        paned=draw.chance(batch, _SURFACES * FACES, 1, of=0.35),
        seams=_draw_seams(draw, batch),
    )


def _look(room: Room, size: int) -> Tensor:
    """Directions of pixels, [B, 1, 3, S, S]."""
    line = (torch.arange(size, device=room.focal.device) + 0.5) * (2 / size) - 1
    x, y = (line / room.focal).expand(-1, 1, size, size), (-line[:, None] / room.focal).expand(-1, 1, size, size)
    sine, cosine = torch.sin(room.pitch), torch.cos(room.pitch)
    return torch.stack([x, cosine * y - sine, sine * y + cosine], 2)


def _meet(room: Room, way: Tensor) -> tuple[Tensor, Tensor]:
    """Which surface each pixel shows, int64 [B, S, S], and how often `way` it is to it, [B, 1, S, S]."""
    drop, normals, far = -way[:, :, 1], room.walls[:, :, :3, None, None], room.walls[:, :, 3, None, None]
    floor = torch.where(drop > 1e-4, room.camera[:, :, 1] / drop.clamp_min(1e-4), torch.inf)  # [B, 1, S, S]
    towards = (way * normals).sum(2)  # [B, 2, S, S]
    walls = torch.where(towards > 1e-4, far / towards.clamp_min(1e-4), torch.inf)
    over = room.camera[:, :, 1] + walls * way[:, :, 1] > room.height
    walls = torch.where(over, torch.inf, walls)
    solids = distances(room.solids, room.camera, way)
    sky = torch.full_like(floor, 60.0)
    nearest = torch.cat([sky, floor, walls, solids], 1).min(1, keepdim=True)
    return nearest.indices[:, 0], nearest.values


def _shade(room: Room, points: Tensor, normal: Tensor, way: Tensor, gloss: Tensor) -> tuple[Tensor, Tensor]:
    """Brightness and highlights, [B, 1, S, S], of `points` [B, 1, 3, S, S] that face `normal` [B, 3, S, S]."""
    ambient, strength, falling = room.light.unbind(1)  # [B, 1, 1, 1]
    direct, shine = torch.zeros_like(gloss), torch.zeros_like(gloss)
    outside, seen_along = points + 0.01 * normal[:, None], F.normalize(way[:, 0], dim=1)
    for lamp in room.lamps.split(1, 1):
        to_lamp = lamp - points
        hidden = distances(room.solids, outside, to_lamp).amin(1, keepdim=True) < 1  # [B, 1, S, S]
        lit = 1 - strength * hidden.float()
        direction = F.normalize(to_lamp[:, 0], dim=1)
        reach = lamp.norm(dim=2).clamp_min(3) / to_lamp.norm(dim=2).clamp_min(1)
        facing = (direction * normal).sum(1, keepdim=True).clamp_min(0)
        direct = direct + lit * facing * reach.clamp(0.2, 2) ** falling / _LAMPS
        halfway = F.normalize(direction - seen_along, dim=1)
        shine = shine + lit * (halfway * normal).sum(1, keepdim=True).clamp_min(0) ** 40 / _LAMPS
    return ambient + 1.2 * (1 - ambient) * direct, gloss * shine


class _Skin(NamedTuple):
    """Of each pixel, [B, S, S]: face; where on it, from -1 to 1; how long 1 is, in metres; `normal` is [B, 3, S, S]."""

    face: Tensor
    u: Tensor
    v: Tensor
    metres: Tensor
    normal: Tensor


def _find_skin(room: Room, shown: Tensor, points: Tensor) -> _Skin:
    """Of `points` [B, 1, 3, S, S] on the surfaces that pixels show, int64 [B, S, S]. The floor lies along the wall."""
    own = room.solids.at((shown - _FIRST).clamp_min(0))
    solid = surface(own, points)
    wall = (shown - _WALL).clamp(0, 1)
    normals = of_pixel(room.walls[:, :, :3], wall)  # [B, 3, S, S]
    x, y, z = points[:, 0].unbind(1)
    flat, on_floor = shown < _FIRST, shown == _FLOOR
    u = (normals[:, 2] * x - normals[:, 0] * z) / _LENGTH
    away = normals[:, 0] * x + normals[:, 2] * z  # of the floor's, which are those of the wall behind everything
    v = torch.where(on_floor, away - 4, y - 1.5) / _LENGTH
    up = F.pad(torch.ones_like(u)[:, None], (0, 0, 0, 0, 1, 1))
    return _Skin(
        face=torch.where(flat, 0, solid.face),
        u=torch.where(flat, u, solid.u),
        v=torch.where(flat, v, solid.v),
        metres=torch.where(flat, _LENGTH, own.half[:, 0].mean(1)),
        normal=torch.where(flat[:, None], torch.where(on_floor[:, None], up, -normals), solid.normal),
    )


def _find_pane(room: Room, shown: Tensor, skin: _Skin) -> Tensor:
    """The pane of its face that each pixel lies on, from 1, or 0. int64 [B, S, S]"""
    rows, columns, margin = of_pixel(room.panes, shown).unbind(1)
    panes = find_panes(skin.u, skin.v, columns, rows, 0.05 + margin, _PANES)
    paned = of_pixel(room.paned, shown * FACES + skin.face)[:, 0] & (shown != _SKY)
    return torch.where(paned, panes, 0)


def _find_seams(room: Room, shown: Tensor, skin: _Skin, pixel: Tensor) -> Tensor:
    """The share of its light that each pixel, so many metres wide, loses to a seam. That is no outline: what it runs
    through is one thing. [B, 1, S, S], as `pixel`"""
    seams = of_pixel(room.seams, shown)  # [B, 3, S, S]
    metres, depth = seams[:, :2], seams[:, 2:]
    place = torch.stack([skin.u, skin.v], 1) * skin.metres[:, None]  # [B, 2, S, S]
    to_seam = (metres * (torch.remainder(place / metres, 1) - 0.5).abs()).amin(1, keepdim=True)
    width = pixel.clamp_min(_SEAM)  # what is finer than pixels is paler, not dotted
    on_seam = (to_seam < width / 2) & (shown != _SKY)[:, None]
    return on_seam * depth * _SEAM / width


def paint_room(room: Room, textures: Tensor) -> Scenes:
    """Draws what was decided; nothing here is random. `textures` are [n, S, S]; levels are panes, faces, things."""
    way = _look(room, textures.shape[1])
    shown, far = _meet(room, way)
    points = room.camera + far[:, :, None] * way  # [B, 1, 3, S, S]
    skin = _find_skin(room, shown, points)
    pane = _find_pane(room, shown, skin)
    material = of_pixel(room.materials, shown)  # [B, 9, S, S]
    colour = material[:, :3]
    colour = torch.where((pane > 0)[:, None], set_apart(colour, material[:, 3:6], 1), colour)
    scale = skin.metres * material[:, 7]
    grain = sample_textures(textures, of_pixel(room.texture, shown), skin.v * scale, skin.u * scale)
    colour = colour + (grain * material[:, 6])[:, None] * (4 / far).clamp_max(1)  # too fine to be seen far away
    colour = colour * (1 - _find_seams(room, shown, skin, far * 2 / (room.focal * textures.shape[1])))
    brightness, shine = _shade(room, points, skin.normal, way, material[:, 8:9])
    is_sky = (shown == _SKY)[:, None]
    brightness = torch.where(is_sky, 1 - 0.3 * way[:, 0, 1:2], brightness)
    image = colour * brightness + torch.where(is_sky, 0.0, shine)
    face = shown * FACES + skin.face
    return Scenes(image.clamp(0, 1), torch.stack([face * (_PANES**2 + 1) + pane, face, shown], 1))
