"""Polygons with holes as single rings: each hole is connected to the ring above it by a cut without width."""

from __future__ import annotations

import numpy as np

from sam2_amg.answers.rings import Part, Ring

Point = tuple[float, float]


def cut_open(part: Part) -> Ring:
    """One ring around a part, [n, 2]. The cuts are vertical; they are walked down to the hole, and up again.

    A cut begins at the highest corner of a hole, and ends where it first meets the outer ring, or a hole that begins
    higher up. So no cut crosses anything.
    """
    if not part.holes:
        return part.outer
    holes = [_from_the_top(hole) for hole in part.holes]
    holes.sort(key=lambda hole: (hole[0, 1], hole[0, 0]))
    rings = [part.outer, *holes]
    attached: list[dict[int, list[list[Point]]]] = [{} for _ in rings]  # by ring and edge: what is connected to it
    meets = _where_cuts_meet(rings)
    for number in range(len(rings) - 1, 0, -1):  # what hangs on a hole comes after it
        ring, edge, y = meets[number - 1]
        loop = _with_attached(rings[number], attached[number])
        at: Point = (loop[0][0], y)
        attached[ring].setdefault(edge, []).append([at, *loop, loop[0], at])
    return _without_repetitions(_with_attached(part.outer, attached[0]))


def _from_the_top(ring: Ring) -> Ring:
    """A ring that begins at its highest corner, the leftmost of them."""
    return np.roll(ring, -np.lexsort((ring[:, 0], ring[:, 1]))[0], axis=0)


def _where_cuts_meet(rings: list[Ring]) -> list[tuple[int, int, float]]:
    """For each ring but the first: the ring before it, the edge of that, and the y, that its upward cut first meets."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    lengths = [len(ring) for ring in rings]
    offsets = np.cumsum([0, *lengths])
    left, right = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    meets = []
    for number in range(1, len(rings)):
        x, top = rings[number][0]
        before = slice(0, offsets[number])
        edges = np.flatnonzero((left[before] <= x) & (x <= right[before]))
        ys = _height_at(x, top, starts[edges], ends[edges])
        edge = int(edges[np.argmax(np.where(ys <= top, ys, -np.inf))])
        ring = int(np.searchsorted(offsets, edge, side="right")) - 1
        meets.append((ring, edge - int(offsets[ring]), ys[np.flatnonzero(edges == edge)[0]].item()))
    return meets


def _height_at(x: float, top: float, starts: Ring, ends: Ring) -> Ring:
    """The y of edges at x; of vertical edges, that of the lower end, or `top` if it is between the ends."""
    run, rise = ends[:, 0] - starts[:, 0], ends[:, 1] - starts[:, 1]
    level = rise == 0
    lower = np.maximum(starts[:, 1], ends[:, 1])
    upright = np.where(np.minimum(starts[:, 1], ends[:, 1]) <= top, np.minimum(lower, top), lower)
    sloping = starts[:, 1] + (x - starts[:, 0]) / np.where(run == 0, 1, run) * rise
    ys = np.where(level, starts[:, 1], np.where(run == 0, upright, sloping))
    # an end is met exactly
    return np.where(x == starts[:, 0], np.where(run == 0, ys, starts[:, 1]), np.where(x == ends[:, 0], ends[:, 1], ys))


def _with_attached(ring: Ring, attached: dict[int, list[list[Point]]]) -> list[Point]:
    """The corners of a ring. What is connected to an edge follows the edge's first corner, in the edge's direction."""
    corners: list[Point] = [(x, y) for x, y in ring.tolist()]
    if not attached:
        return corners
    joined: list[Point] = []
    for i, corner in enumerate(corners):
        joined.append(corner)
        following = corners[(i + 1) % len(corners)]
        forward = following > corner
        for loop in sorted(attached.get(i, ()), key=lambda loop: loop[0], reverse=not forward):
            joined += loop
    return joined


def _without_repetitions(points: list[Point]) -> Ring:
    """The points but those that equal the one before."""
    ring = np.array(points)
    return ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
