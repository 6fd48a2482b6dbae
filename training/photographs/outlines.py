"""Outlines of the things in the photographs that train, drawn by hand, and what of the picture they enclose.

`outlines.json` has for each photograph what lies on what, the lowest first. `["cup/white/inside", 487, 275, 165, 205]`
is an ellipse by its middle and half its width and height; more numbers are the corners of a polygon, x then y, all in
thousandths of the picture. A name tells what a thing is part of: a pixel is of the region `cup/white/inside`, the part
`cup/white`, and the thing `cup`. Hands are not exact, so each outline moves to a strong edge of the picture nearby, by
the watershed (Beucher and Meyer 1993, "The morphological approach to segmentation") from what surely lies inside.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.photographs.pieces import cut

PATH = Path(__file__).with_name("outlines.json")
_REACH = 9.0  # how far an outline may move, in pixels; those of narrow things less
_SURE = 0.55  # of how deep it is, that much of a thing may be lost to its neighbours
_SLIVER = 100  # pixels: less than these, between outlines that do not quite meet, is nothing

Outline = list[str | int]


def read_outlines() -> dict[str, list[Outline]]:
    """The outlines of each photograph, the lowest first."""
    outlines: dict[str, list[Outline]] = json.loads(PATH.read_text())
    return outlines


def rasterise(outlines: list[Outline], side: int) -> tuple[NDArray[np.int32], list[str]]:
    """The number of the topmost outline's name at every pixel of [side, side], and the names."""
    names = sorted({str(name) for name, *_ in outlines})
    canvas = Image.new("I", (side, side))
    draw = ImageDraw.Draw(canvas)
    for name, *numbers in outlines:
        places = [float(number) * side / 1000 for number in numbers]
        if len(places) == 4:
            x, y, across, down = places
            draw.ellipse((x - across, y - down, x + across, y + down), fill=names.index(str(name)))
        else:
            draw.polygon(places, fill=names.index(str(name)))
    return np.array(canvas, np.int32), names


def _edges(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much colours change, at two scales. [S, S, 3] -> [S, S]"""
    from scipy.ndimage import gaussian_gradient_magnitude

    strength = np.zeros(lab.shape[:2])
    for sigma in (1.5, 3.0):
        changes = [gaussian_gradient_magnitude(lab[..., channel], sigma) for channel in range(3)]
        # Light changes lightness most, and so hue counts twice.
        strength += 0.5 * sigma * np.sqrt(changes[0] ** 2 + 2 * changes[1] ** 2 + 2 * changes[2] ** 2)
    return strength


def snap(labels: NDArray[np.int32], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    """Labels whose outlines follow the strongest of `edges` that are near. [S, S]

    Each island of a label keeps what is deep inside it, but for slivers.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label as tell_apart
    from skimage.segmentation import watershed

    islands = tell_apart(labels + 1)  # from 1
    sure = np.zeros(labels.shape, np.int32)
    for number in np.flatnonzero(np.bincount(islands.ravel()) >= _SLIVER):
        island = islands == number
        depth = distance_transform_edt(island)
        core = depth > min(_REACH, _SURE * depth.max())
        sure[core] = labels[core] + 1
    return (watershed(edges, sure) - 1).astype(np.int32)


def stack_levels(labels: NDArray[np.int32], names: list[str]) -> NDArray[np.int32]:
    """The labels of regions, parts and things, none of which is at two levels. [S, S] -> [3, S, S]"""
    numbers: dict[tuple[int, str], int] = {}
    levels = []
    for level, depth in enumerate((None, 2, 1)):
        wholes = ["/".join(name.split("/")[:depth]) for name in names]
        levels.append([numbers.setdefault((level, whole), len(numbers)) for whole in wholes])
    return np.array(levels, np.int32)[:, labels]


def _smooth(labels: NDArray[np.intp]) -> NDArray[np.int32]:
    """Labels with smooth outlines."""
    from scipy.ndimage import gaussian_filter

    best = np.zeros(labels.shape, np.float32)
    smoothed = np.zeros(labels.shape, np.int32)
    for label in np.unique(labels):
        weight = gaussian_filter((labels == label).astype(np.float32), 2.0)
        smoothed[weight > best] = label
        best = np.maximum(best, weight)
    return smoothed


def segment(image: NDArray[np.uint8], outlines: list[Outline]) -> NDArray[np.int32]:
    """Pieces, regions, parts and things of a square picture, uint8 [S, S, 3]. int32 [4, S, S]"""
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_bilateral

    lab = rgb2lab(denoise_bilateral(image, sigma_color=0.08, sigma_spatial=3, channel_axis=2, mode="edge")) / 100
    edges = _edges(lab)
    labels, names = rasterise(outlines, len(image))
    labels = snap(labels, edges)
    pieces = cut(lab, edges, labels)
    _, first = np.unique(pieces, return_index=True)
    smoothed = _smooth(pieces)
    levels = stack_levels(labels.ravel()[first][smoothed], names)
    return np.concatenate([smoothed[None] + levels.max() + 1, levels])
