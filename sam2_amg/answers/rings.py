"""The edges of a mask as rings of corners, exactly along the edges of its pixels.

A mask has parts: pixels that hang together by their sides. Each part has one outer ring and a ring for each hole in it.
No ring touches itself, so that parts are valid polygons. With y downward, outer rings turn clockwise and holes
counter-clockwise: the mask lies on the right of each edge.

Time and memory go with the number of runs, not of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sam2_amg.answers.runs import Runs, split_by_column

Ring = NDArray[Any]
"""Corners [n, 2], (x, y). The last is connected to the first, and is not equal to it."""


@dataclass(frozen=True)
class Part:
    """A part of a mask: its outer ring and its holes."""

    outer: Ring
    holes: tuple[Ring, ...]


@dataclass(frozen=True)
class _Around:
    """Places where four pixels meet, and the parts that these pixels belong to, 0 for none. int64 [n]."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    top_left: NDArray[np.int64]
    bottom_left: NDArray[np.int64]
    top_right: NDArray[np.int64]
    bottom_right: NDArray[np.int64]

    def select(self, rows: NDArray[Any]) -> _Around:
        """The places at the given rows, in that order."""
        return _Around(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True)
class _Corners:
    """The corners of all rings of a mask, sorted by (y, x). Where two rings touch, the corner is there twice."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    part: NDArray[np.int64]  # number of the part whose ring the corner is of
    rightward: NDArray[np.bool_]  # whether the horizontal edge is walked rightward: the mask is below it
    after: NDArray[np.bool_]  # whether the corner comes second on its column among two of equal x and y


def parts_of(runs: Runs, height: int) -> list[Part]:
    """The parts of a mask in an image of this height. Coordinates are of pixel corners: pixel (0, 0) spans 0 to 1."""
    rings: dict[int, list[Ring]] = {}
    for part, ring in _walk(_corners_of(_around(split_by_column(runs, height), height))):
        rings.setdefault(part, []).append(ring)
    return [_as_part(rings[part]) for part in sorted(rings)]


def _as_part(rings: list[Ring]) -> Part:
    """The ring with the leftmost corner is the outer one."""
    outer = min(range(len(rings)), key=lambda i: rings[i][:, 0].min())
    return Part(rings[outer], tuple(ring for i, ring in enumerate(rings) if i != outer))


def _number_parts(runs: Runs, height: int) -> NDArray[np.int64]:
    """The part of each run, from 1. Runs are split by column. They connect if they share a row in adjacent columns."""
    starts, ends = runs
    first = np.searchsorted(ends, starts + height, side="right")
    last = np.searchsorted(starts, ends + height, side="left")  # exclusive
    bounds = np.concatenate(([0], np.cumsum(last - first)))
    neighbours = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], last - first)
    graph = csr_array((np.ones(len(neighbours), bool), neighbours, bounds), shape=(len(starts), len(starts)))
    return connected_components(graph, directed=False)[1].astype(np.int64) + 1


def _around(runs: Runs, height: int) -> _Around:
    """The places at the upper and lower ends of runs, which are split by column, sorted by (x, y)."""
    part = _number_parts(runs, height)
    column = runs.starts // height
    # Where a column enters the mask, or leaves it, in turn. A column has height + 1 places.
    changes = (np.stack(runs, axis=1) + column[:, None]).ravel()
    places = np.union1d(changes, changes + height + 1)

    def pixels(at: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The parts of the pixels above and below places of the column on one side."""
        for before in (np.searchsorted(changes, at, side="left"), np.searchsorted(changes, at, side="right")):
            inside = before % 2 == 1  # entered, and not left
            parts = np.zeros(len(at), np.int64)
            parts[inside] = part[before[inside] // 2]
            yield parts

    return _Around(places // (height + 1), places % (height + 1), *pixels(places - height - 1), *pixels(places))


def _corners_of(around: _Around) -> _Corners:
    left = (around.top_left > 0) != (around.bottom_left > 0)  # whether there is a horizontal edge on this side
    right = (around.top_right > 0) != (around.bottom_right > 0)
    crossing = left & right & ((around.top_left > 0) != (around.top_right > 0))
    count = np.where(crossing, 2, left != right)  # none if the edge goes straight on
    rows = np.repeat(np.arange(len(count)), count)
    rows = rows[np.lexsort((around.x[rows], around.y[rows]))]
    at, twice, left = around.select(rows), crossing[rows], left[rows]
    second = np.zeros(len(rows), bool)
    second[1:] = twice[1:] & (rows[1:] == rows[:-1])
    falling = at.top_left > 0  # of a crossing: the mask has the pixels top left and bottom right
    one_part = np.where(falling, at.top_left == at.bottom_right, at.top_right == at.bottom_left)
    # Of two corners at one place, the first has the left edge and the second the right one. Two parts touch with a
    # corner each. Where one part touches itself, two of its rings go round the background instead.
    first_has_top = falling != one_part
    on_left = np.where(twice, ~second, left)
    below = np.where(on_left, at.bottom_left, at.bottom_right)
    above = np.where(on_left, at.top_left, at.top_right)
    return _Corners(at.x, at.y, np.maximum(below, above), below > 0, twice & (second == first_has_top))


def _walk(corners: _Corners) -> Iterator[tuple[int, Ring]]:
    """Each ring, with the number of its part. Horizontal and vertical edges take turns."""
    count = len(corners.x)
    rows = np.arange(count)
    columns = np.lexsort((corners.after, corners.y, corners.x))
    beside, over = np.empty(count, np.int64), np.empty(count, np.int64)  # the other ends of the two edges of a corner
    for mates, order in ((beside, rows), (over, columns)):
        mates[order[0::2]], mates[order[1::2]] = order[1::2], order[0::2]
    leaves_sideways = (rows % 2 == 0) == corners.rightward
    following = np.where(leaves_sideways, beside, over).tolist()
    seen = bytearray(count)
    for start in range(count):
        ring = []
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            ring.append(corner)
            corner = following[corner]
        if ring:
            yield int(corners.part[start]), np.stack([corners.x[ring], corners.y[ring]], axis=1)
