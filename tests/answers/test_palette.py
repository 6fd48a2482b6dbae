"""Colours of masks that touch differ, for all eyes."""

from __future__ import annotations

import itertools

import numpy as np
from answer_masks import discs, records_of
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from sam2_amg.answers.options import Options
from sam2_amg.answers.overlay import colour, layers_of, overlay
from sam2_amg.answers.palette import BEST, PALETTE, assign_colours, touching

# Machado, Oliveira and Fernandes 2009, severity 1.0: linear RGB -> linear RGB
EYES = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colours: object) -> NDArray[np.float64]:
    """CIELAB of sRGB colours as each pair of eyes sees them, [4, n, 3]."""
    rgb = np.asarray(colours) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.stack([(linear @ np.transpose(matrix)).clip(0, 1) for matrix in EYES.values()])
    return rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))


def least_difference(a: object, b: object) -> float:
    """CIEDE2000 of pairs of colours, the least of all pairs and eyes."""
    return float(deltaE_ciede2000(seen(a), seen(b)).min())


def test_colours_of_the_palette_differ() -> None:
    for colours, least in ((PALETTE, 10), (PALETTE[:BEST], 19)):
        first, second = zip(*itertools.combinations(colours, 2), strict=True)
        assert least_difference(first, second) >= least


def neighbours_in_pixels(labels: NDArray[np.uint16]) -> set[tuple[int, int]]:
    """Pairs of labels whose pixels share a side."""
    pairs = set()
    height, width = labels.shape
    for y, x in itertools.product(range(height), range(width)):
        for other in ((y + 1, x), (y, x + 1)):
            if other[0] < height and other[1] < width:
                a, b = sorted((int(labels[y, x]), int(labels[other])))
                if a > 0 and a != b:
                    pairs.add((a, b))
    return pairs


def test_two_hundred_masks_that_touch_differ() -> None:
    size = (80, 120)
    masks = [mask for mask in [np.ones(size, bool), *discs(260, size)] if mask.any()][:200]
    assert len(masks) == 200
    labels = layers_of(records_of(masks), size).labels
    pairs = sorted(neighbours_in_pixels(labels))
    assert len(pairs) > 300
    near = set(map(tuple, touching(labels).tolist()))
    assert near.issuperset(pairs)
    chosen = assign_colours(200, [(a - 1, b - 1) for a, b in near])
    first = [PALETTE[chosen[a - 1]] for a, b in pairs]
    second = [PALETTE[chosen[b - 1]] for a, b in pairs]
    assert least_difference(first, second) >= 10
    # and this is what is drawn
    drawn = overlay(np.zeros((*size, 3), np.uint8), records_of(masks), Options(style="fill", opacity=1))
    inside = (labels > 0) & ~layers_of(records_of(masks), size).outlines
    assert np.array_equal(drawn[inside], np.array(PALETTE)[chosen][labels[inside] - 1])
    # the colours of `POST /upload` do not do that
    assert least_difference([colour(a - 1) for a, b in pairs], [colour(b - 1) for a, b in pairs]) < 10


def test_masks_within_four_pixels_touch() -> None:
    labels = np.array([[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 4]], np.uint16)
    assert touching(labels).tolist() == touching(labels.T).tolist() == [[1, 2], [2, 3]]
    assert touching(np.zeros((1, 1), np.uint16)).tolist() == []


def test_as_many_neighbours_as_colours() -> None:
    """20 masks that all touch have 20 colours. With a 21st, one colour is there twice."""
    for count in (20, 21):
        assert len(set(assign_colours(count, itertools.combinations(range(count), 2)))) == 20
    star = assign_colours(101, [(0, i) for i in range(1, 101)])
    assert star[0] not in star[1:]
    assert max(star) < BEST
