"""Colours that are told apart, also by colour-blind eyes, and which mask gets which.

Any two colours of `PALETTE` differ by at least 10 (CIEDE2000), and any two of its first `BEST` by at least 19. That
holds for eyes that see all colours, and as deuteranopia, protanopia and tritanopia show them (Machado et al. 2009,
severity 1). tests/answers/test_palette.py measures it. Farthest-point search over a grid of 12 values a channel gives
these colours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

PALETTE = (
    (255, 96, 144),
    (0, 72, 0),
    (96, 0, 120),
    (0, 255, 240),
    (216, 240, 0),
    (144, 0, 255),
    (0, 144, 0),
    (192, 144, 255),
    (144, 72, 96),
    (168, 192, 0),
    (72, 96, 144),
    (168, 0, 48),
    (255, 216, 144),
    (24, 24, 192),
    (168, 120, 96),
    (120, 24, 72),
    (168, 168, 96),
    (0, 192, 168),
    (168, 96, 255),
    (255, 24, 0),
)
BEST = 8
_REACH = (1, 2, 4)  # pixels from one mask to the other; eyes do not see smaller gaps


def touching(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """The pairs (a, b), a < b, of labels that touch in a label map [H, W]: int64 [m, 2]. 0 is no label.

    Two labels touch if pixels of theirs are 1, 2 or 4 pixels apart in a row or a column.
    """
    found = [np.empty(0, np.int64)]
    for apart in _REACH:
        for a, b in ((labels[apart:], labels[:-apart]), (labels[:, apart:], labels[:, :-apart])):
            differ = a != b
            first, second = a[differ].astype(np.int64), b[differ].astype(np.int64)
            both = (first > 0) & (second > 0)
            low, high = np.minimum(first, second)[both], np.maximum(first, second)[both]
            found.append(np.unique(low << 32 | high))
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1)


def assign_colours(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """An index of `PALETTE` for each of `count` nodes of a graph, so that connected nodes differ.

    Greedy, in smallest-last order (Matula and Beck 1983). A node gets the least used colour that none of its neighbours
    has, one of the first `BEST` if there is any. Two neighbours can only be equal if each order has a node with 20
    neighbours before it.
    """
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    chosen = [-1] * count
    used = [0] * len(PALETTE)
    for node in reversed(_smallest_first(neighbours)):
        taken = {chosen[other] for other in neighbours[node]}
        free = [i for i in range(len(PALETTE)) if i not in taken] or list(range(len(PALETTE)))
        chosen[node] = min([i for i in free if i < BEST] or free, key=used.__getitem__)
        used[chosen[node]] += 1
    return chosen


def _smallest_first(neighbours: list[set[int]]) -> list[int]:
    """The nodes in the order in which they are taken from the graph, always the one with the fewest neighbours left."""
    degrees = [len(others) for others in neighbours]
    heap = [(degree, node) for node, degree in enumerate(degrees)]
    heapq.heapify(heap)
    gone = [False] * len(neighbours)
    order = []
    while heap:
        degree, node = heapq.heappop(heap)
        if gone[node] or degree != degrees[node]:
            continue  # an entry from before a neighbour went
        gone[node] = True
        order.append(node)
        for other in neighbours[node]:
            if not gone[other]:
                degrees[other] -= 1
                heapq.heappush(heap, (degrees[other], other))
    return order
