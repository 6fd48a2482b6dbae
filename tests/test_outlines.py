"""Photographs that train: what outlines drawn by hand enclose, and things pasted from one into another."""

import math
from itertools import chain

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from demo.crops import _LABELS, _PASTED, SEGMENTED, paste_things
from demo.outlines import rasterise, read_outlines, segment, snap, stack_levels
from demo.randomness import Draw
from demo.scenes import Scenes


def test_every_photograph_has_outlines_and_all_lie_in_it():
    outlines = read_outlines()
    assert sorted(outlines) == sorted(chain.from_iterable(SEGMENTED.values()))
    for lines in outlines.values():
        whole, *_ = lines
        assert whole[1:] == [0, 0, 1000, 0, 1000, 1000, 0, 1000]
        assert len({name for name, *_ in lines}) * 3 <= _LABELS
        for name, *numbers in lines:
            assert len(numbers) % 2 == 0, name
            assert len(numbers) >= 4, name
            assert 0 <= min(numbers) <= max(numbers) <= 1000, name
            assert len(numbers) > 4 or min(numbers[2:]) > 0, name


def test_what_is_drawn_later_lies_above():
    outlines = [
        ["table", 0, 0, 1000, 0, 1000, 1000, 0, 1000],
        ["plate", 500, 500, 400, 200],
        ["plate/bread", 400, 400, 600, 400, 600, 600, 400, 600],
    ]
    labels, names = rasterise(outlines, 200)
    assert names == ["plate", "plate/bread", "table"]
    assert labels.shape == (200, 200)
    seen = [names[labels[y, x]] for x, y in ((5, 5), (100, 100), (30, 100), (170, 100), (100, 70), (100, 50))]
    assert seen == ["table", "plate/bread", "plate", "plate", "plate", "table"]
    areas = np.bincount(labels.ravel())
    assert areas[1] == pytest.approx(40 * 40, rel=0.06)
    assert areas[0] + areas[1] == pytest.approx(math.pi * 80 * 40, rel=0.03)


def test_regions_parts_and_things_are_told_by_names():
    names = ["cup/white", "cup/white/inside", "cup/white/inside/coffee", "table"]
    levels = stack_levels(np.arange(4, dtype=np.int32).reshape(2, 2), names)
    assert levels.shape == (3, 2, 2)
    assert levels.dtype == np.int32
    regions, parts, things = (level.ravel().tolist() for level in levels)
    assert len(set(regions)) == 4
    assert parts[0] == parts[1] == parts[2] != parts[3]
    assert things[0] == things[1] == things[2] != things[3]
    assert len({*regions, *parts, *things}) == 4 + 2 + 2  # no level has labels of another


def test_outlines_move_to_edges_nearby():
    y, x = np.mgrid[:96, :96]
    drawn = (x >= 44).astype(np.int32)  # the edge is at 50
    drawn[60:64] = 2  # narrow
    drawn[:6, :6] = 3  # in a corner, where there are no edges
    edges = np.exp(-(((x - 50) / 2.0) ** 2)) + np.exp(-(((y - 59.5) / 1.0) ** 2)) + np.exp(-(((y - 63.5) / 1.0) ** 2))
    snapped = snap(drawn, edges)
    assert snapped.dtype == np.int32
    assert np.unique(snapped).tolist() == [0, 1, 2, 3]
    assert (snapped[10:55, :49] == 0).all()
    assert (snapped[:55, 52:] == 1).all()
    assert (snapped[61:63] == 2).all()
    assert not (snapped[66:] == 2).any()
    assert snapped[0, 0] == 3


def lit_discs(side):
    """A grey surface, darker to the left, with two discs on it: uint8 picture, and 0, 1, 2 for what each pixel shows.

    A little noise, for no camera is without.
    """
    y, x = np.mgrid[:side, :side] / side
    shown = (np.hypot(y - 0.3, x - 0.28) < 0.23) + 2 * (np.hypot(y - 0.67, x - 0.7) < 0.23)
    picture = np.array([0.8, 0.75, 0.7]) * (0.1 + 0.9 * x[..., None])
    picture[shown == 1] = 0.8, 0.2, 0.2
    picture[shown == 2] = 0.1, 0.3, 0.7
    picture += 0.02 * np.random.default_rng(0).normal(size=picture.shape)
    return (255 * picture.clip(0, 1)).round().astype(np.uint8), shown


def assert_three_regions(levels, shown, margin):
    """One for the surface and one for each disc, at every level, but for what is nearer than `margin` to outlines."""
    inner = [binary_erosion(shown == i, iterations=margin) for i in range(3)]
    for level in levels:
        found = [np.unique(level[where]).tolist() for where in inner]
        assert [len(labels) for labels in found] == [1, 1, 1]
        assert len({labels[0] for labels in found}) == 3


def test_hands_need_not_be_exact():
    picture, shown = lit_discs(640)
    outlines = [
        ["surface", 0, 0, 1000, 0, 1000, 1000, 0, 1000],
        ["disc 1", 288, 295, 226, 235],  # at 280, 300; 230 across
        ["disc 2", 695, 662, 235, 224],  # at 700, 670
    ]
    levels = segment(picture, outlines)
    assert levels.shape == (3, 640, 640)
    assert levels.dtype == np.int32
    assert_three_regions(levels, shown, 3)


@pytest.fixture
def pair():
    """Two flat pictures of 32 x 32 pixels: a dark one with two labels a level, a bright one with a small square."""
    images = torch.zeros(2, 3, 32, 32)
    images[1] = 1
    levels = torch.arange(6).view(2, 3, 1, 1).expand(2, 3, 32, 32) * 4
    levels = levels.clone()
    levels[0, :, 16:] += 1
    levels[1, :, 8:14, 8:14] += 1
    return Scenes(images, -1 - levels)


def test_nothing_is_pasted_that_covers_too_much_or_was_not_asked_for(pair):
    for seed in range(8):
        for share, largest in ((0.0, 1.1), (1.0, 0.0)):
            same = paste_things(Draw(seed, "cpu"), pair, share, largest)
            assert all(torch.equal(new, old) for new, old in zip(same, pair, strict=True))


def test_a_pasted_thing_brings_its_pixels_and_labels(pair):
    seen = set()
    for seed in range(40):
        pasted = paste_things(Draw(seed, "cpu"), pair, 1.0, 0.6)
        for index, (image, levels) in enumerate(zip(*pasted, strict=True)):
            other = 1 - index
            new = levels <= -_PASTED
            assert (new == new[:1]).all()  # all levels, in the same place
            new = new[0]
            assert torch.equal(levels[:, ~new], pair.levels[index][:, ~new])
            assert torch.equal(levels[:, new] + _PASTED, pair.levels[other][:, new])
            area = int(new.sum())
            seen.add((index, area))
            inner = torch.nn.functional.max_pool2d((~new[None]).float(), 3, 1, 1)[0] == 0
            assert (image[:, inner] == other).all()
            far = torch.nn.functional.max_pool2d(new[None].float(), 3, 1, 1)[0] == 0
            assert (image[:, far] == index).all()
    # half of the first; the square of the second, whose surroundings are too large
    assert seen == {(1, 512), (0, 36), (0, 0)}
