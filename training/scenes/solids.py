"""Boxes, balls and cylinders in space, and the rays that meet them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.scenes.scenes import of_pixel

BOX, BALL, CYLINDER = range(3)
FACES = 6  # of a box, at most
_CAP = 0.999  # a point this high on a cylinder, in halves of its height, lies on an end
_NEAREST = 1e-3  # a ray meets nothing nearer than this: it would meet what it comes from


class Solids(NamedTuple):
    """K solids of B scenes, upright, turned by `yaw`. Each field is [B, K, 3, 1, 1] or [B, K, 1, 1, 1]."""

    centre: Tensor
    half: Tensor  # sizes, in halves
    yaw: Tensor
    kind: Tensor  # int64

    def at(self, index: Tensor) -> Solids:
        """Those that pixels show: `index` int64 [B, S, S] -> fields [B, 1, C, S, S]."""
        return Solids(*(of_pixel(field[..., 0, 0], index)[:, None] for field in self))


def turn(vectors: Tensor, yaw: Tensor) -> Tensor:
    """Turns [B, K, 3, S, S] about the vertical."""
    x, y, z = vectors.unbind(2)
    cosine, sine = torch.cos(yaw)[:, :, 0], torch.sin(yaw)[:, :, 0]
    across, deep = cosine * x + sine * z, cosine * z - sine * x
    return torch.stack([across, y.expand_as(across), deep], 2)


def to_local(solids: Solids, points: Tensor) -> Tensor:
    """Points [B, 1, 3, S, S] in the frames of solids, where a box is from -1 to 1. [B, K, 3, S, S]"""
    return turn(points - solids.centre, solids.yaw) / solids.half


def distances(solids: Solids, origin: Tensor, direction: Tensor) -> Tensor:
    """How many times `direction` from `origin`, both [B, 1, 3, S, S], it is to each solid; inf where none is met.

    [B, K, S, S]. A solid is what lies within all its surfaces (slabs, a tube, a ball), so a ray is inside between the
    last that it enters and the first that it leaves.
    """
    start = to_local(solids, origin)
    way = turn(direction, solids.yaw) / solids.half
    way = torch.where(way.abs() < 1e-6, 1e-6, way)
    slab_in, slab_out = (-way.sign() - start) / way, (way.sign() - start) / way  # [B, K, 3, S, S]

    def quadric(axes: list[int]) -> tuple[Tensor, Tensor]:
        """Where a ray enters and leaves the unit ball of some axes; where it does not, it leaves before it enters."""
        w, s = way[:, :, axes], start[:, :, axes]
        a, b, c = (w * w).sum(2), (w * s).sum(2), (s * s).sum(2) - 1
        inside = b * b - a * c
        root = inside.clamp_min(0).sqrt()
        missed = torch.where(inside < 0, torch.inf, 0.0)
        return (-b - root) / a + missed, (root - b) / a - missed

    ball_in, ball_out = quadric([0, 1, 2])
    tube_in, tube_out = quadric([0, 2])
    ends_in, ends_out = slab_in[:, :, 1], slab_out[:, :, 1]
    kind = solids.kind[:, :, 0]
    enter = torch.where(kind == BALL, ball_in, torch.maximum(tube_in, ends_in))
    leave = torch.where(kind == BALL, ball_out, torch.minimum(tube_out, ends_out))
    enter = torch.where(kind == BOX, slab_in.amax(2), enter)
    leave = torch.where(kind == BOX, slab_out.amin(2), leave)
    return torch.where((enter < leave) & (enter > _NEAREST), enter, torch.inf)


class Surface(NamedTuple):
    """What pixels show of solids: the face, int64 [B, S, S]; where on it, `u` and `v` from -1 to 1, [B, S, S],
    but `u` around what is round from -2 to 2, 0 being nearest; and which way it faces, unit vectors [B, 3, S, S]."""

    face: Tensor
    u: Tensor
    v: Tensor
    normal: Tensor


def surface(solids: Solids, points: Tensor) -> Surface:
    """Of `points` [B, 1, 3, S, S] on solids that are one a pixel, as `Solids.at` gives them."""
    local = to_local(solids, points)[:, 0]  # [B, 3, S, S]
    x, y, z = local.unbind(1)
    kind = solids.kind[:, 0, 0]  # [B, S, S]
    axis = local.abs().argmax(1)
    level = (kind == BOX) & (axis == 1) | (kind == CYLINDER) & (y.abs() > _CAP)
    side = torch.zeros_like(local).scatter(1, axis[:, None], local.gather(1, axis[:, None]).sign())
    around = torch.stack([x, torch.where(kind == BALL, y, 0.0), z], 1)
    end = torch.stack([torch.zeros_like(x), y.sign(), torch.zeros_like(x)], 1)
    outward = torch.where((kind == BOX)[:, None], side, torch.where(level[:, None], end, around))
    normal = turn((outward / solids.half[:, 0])[:, None], -solids.yaw)[:, 0]
    sideways = torch.where(axis == 0, z, x)
    u = torch.where(kind == BOX, sideways, torch.atan2(x, -z) * (2 / torch.pi))
    on_box = 2 * axis + (outward.gather(1, axis[:, None])[:, 0] > 0)
    face = torch.where(kind == BOX, on_box, level.long())
    return Surface(face, torch.where(level, x, u), torch.where(level, z, y), F.normalize(normal, dim=1))
