"""What a thing in a photograph falls into where its colours change: pieces, finer than what was outlined by hand.

Not everything has an outline, and a click on a seat in a car wants the seat, too. Small pieces (Felzenszwalb and
Huttenlocher's) are merged across their weakest boundaries, as Arbelaez et al. do (2011, "Contour detection and
hierarchical image segmentation"), here by the mean change of colour along them: where light changes slowly, boundaries
are weak. None crosses an outline.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FINEST = 150  # pixels of what is merged
_NARROW = 10.0  # pixels from the edge to the middle: pieces that are narrower, as along outlines, become others'
_STRENGTH = 0.5  # how strong a boundary must be to remain, in shares of the picture's ninth decile of edges
_OUTLINE = 100.0  # as strong as no edge is


def _mean_strength(graph: Any, lost: int, merged: int, neighbour: int) -> dict[str, float]:
    """The boundary of two pieces that become one with a neighbour of theirs: its mean strength, and its length."""
    sides = [graph[node][neighbour] for node in (lost, merged) if graph.has_edge(node, neighbour)]
    count = sum(side["count"] for side in sides)
    return {"count": count, "weight": sum(side["count"] * side["weight"] for side in sides) / count}


def merge(pieces: NDArray[np.intp], edges: NDArray[np.float64], strength: float) -> NDArray[np.intp]:
    """Pieces whose boundaries are weaker than `strength` become one, the weakest first. [S, S]"""
    from skimage.graph import merge_hierarchical, rag_boundary

    return merge_hierarchical(
        pieces,
        rag_boundary(pieces, edges),
        thresh=strength,
        rag_copy=False,
        in_place_merge=True,
        merge_func=lambda *_: None,
        weight_func=_mean_strength,
    )


def absorb(pieces: NDArray[np.intp], labels: NDArray[np.int32], narrow: float) -> NDArray[np.intp]:
    """The wider pieces of every label, grown over those no pixel of which is `narrow` pixels from others. [S, S]

    A label without a wider one keeps its widest.
    """
    from scipy.ndimage import distance_transform_edt, maximum
    from skimage.segmentation import find_boundaries

    depth = distance_transform_edt(~find_boundaries(pieces, mode="inner"))
    depth = np.asarray(maximum(depth, pieces, np.arange(pieces.max() + 1)))[pieces]  # of a pixel's piece
    absorbed = pieces.copy()
    for label in np.unique(labels):
        inside = labels == label
        wide = inside & (depth >= min(narrow, depth[inside].max()))
        nearest = distance_transform_edt(~wide, return_distances=False, return_indices=True)
        absorbed[inside] = pieces[tuple(nearest)][inside]
    return absorbed


def cut(lab: NDArray[np.float64], edges: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Pieces of what has one label each, by colours [S, S, 3] and `edges` [S, S]; numbered from 0. [S, S]"""
    from skimage.segmentation import felzenszwalb, find_boundaries, join_segmentations

    pieces = join_segmentations(labels, felzenszwalb(lab, scale=60, sigma=0.8, min_size=_FINEST))
    walls = np.where(find_boundaries(labels), _OUTLINE, edges)
    merged = merge(pieces, walls, _STRENGTH * float(np.quantile(edges, 0.9)))
    return np.unique(absorb(merged, labels, _NARROW), return_inverse=True)[1].reshape(labels.shape)
