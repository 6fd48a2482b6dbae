"""Photographs that train: outlines drawn by hand, the pieces within them, and things pasted from one into another."""

import math
from itertools import chain

import networkx
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from skimage import segmentation
from skimage.color import rgb2lab

from training.photographs.crops import _LABELS, _PASTED, SEGMENTED, paste_things
from training.photographs.outlines import _edges, _smooth, rasterise, read_outlines, segment, snap, stack_levels
from training.photographs.pieces import _mean_strength, absorb, cut, merge
from training.scenes.randomness import Draw
from training.scenes.scenes import Scenes


def test_every_photograph_has_outlines_and_all_lie_in_it():
    outlines = read_outlines()
    assert sorted(outlines) == sorted(chain.from_iterable(SEGMENTED.values()))
    for lines in outlines.values():
        whole, *_ = lines
        assert whole[1:] == [0, 0, 1000, 0, 1000, 1000, 0, 1000]
        labels, names = rasterise(lines, 640)
        assert np.unique(labels).size == len(names)  # nothing is covered by what lies above
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
    drawn[80:83] = 2  # narrower, an island of its own
    drawn[70:73, 70:73] = 4  # a sliver
    drawn[:11, :11] = 3  # in a corner, where there are no edges
    edges = np.exp(-(((x - 50) / 2.0) ** 2)) + np.exp(-(((y - 59.5) / 1.0) ** 2)) + np.exp(-(((y - 63.5) / 1.0) ** 2))
    snapped = snap(drawn, edges)
    assert snapped.dtype == np.int32
    assert np.unique(snapped).tolist() == [0, 1, 2, 3]
    assert (snapped[22:55, :49] == 0).all()
    assert (snapped[:55, 52:] == 1).all()
    assert (snapped[61:63] == 2).all()
    assert (snapped[81, 10:40] == 2).all()
    assert not (snapped[66:76, :60] == 2).any()
    assert snapped[0, 0] == 3


def test_outlines_become_smooth_and_small_things_stay():
    labels = np.zeros((64, 64), np.intp)
    labels[:, 30:] = 1
    labels[::2, 30:32] = 0  # a comb
    labels[10:13, 2:28] = 2
    labels[np.hypot(*(np.mgrid[:64, :64] - 45)) < 5] = 3
    smoothed = _smooth(labels)
    assert smoothed.dtype == np.int32
    assert np.unique(smoothed).tolist() == [0, 1, 2, 3]
    assert (smoothed[18:34] == smoothed[18]).all()
    assert (smoothed[11, 6:24] == 2).all()
    assert (smoothed == 3).sum() == pytest.approx((labels == 3).sum(), rel=0.2)


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
    picture, shown = lit_discs(400)
    outlines = [
        ["surface", 0, 0, 1000, 0, 1000, 1000, 0, 1000],
        ["disc 1", 288, 295, 226, 235],  # at 280, 300; 230 across
        ["disc 2", 695, 662, 235, 224],  # at 700, 670
    ]
    levels = segment(picture, outlines)
    assert levels.shape == (4, 400, 400)
    assert levels.dtype == np.int32
    assert_three_regions(levels[1:], shown, 3)
    assert_three_regions(levels[:1], shown, 20)  # along outlines pieces are narrow
    for piece in np.unique(levels[0]):
        assert len(np.unique(levels[1][levels[0] == piece])) == 1
    assert sum(len(np.unique(level)) for level in levels) == len(np.unique(levels))  # no level has labels of another
    assert levels.max() < _LABELS


def test_a_boundary_of_two_pieces_is_as_strong_as_its_parts_on_average():
    graph = networkx.Graph()
    graph.add_edge("lost", "both", count=10, weight=0.2)
    graph.add_edge("merged", "both", count=30, weight=0.6)
    graph.add_edge("lost", "one", count=7, weight=0.3)
    assert _mean_strength(graph, "lost", "merged", "both") == pytest.approx({"count": 40, "weight": 0.5})
    assert _mean_strength(graph, "lost", "merged", "one") == pytest.approx({"count": 7, "weight": 0.3})
    assert _mean_strength(graph, "merged", "lost", "one") == pytest.approx({"count": 7, "weight": 0.3})


def test_only_weak_boundaries_vanish():
    pieces = np.repeat([[0, 1, 2, 3]], 40, 0).repeat(10, 1)
    edges = np.full(pieces.shape, 0.1)
    edges[:, 18:22] = 0.5
    edges[:, 28:32] = 0.3
    weak, middling, strong = (merge(pieces, edges, strength)[0, 5::10].tolist() for strength in (0.2, 0.4, 0.9))
    assert [len(set(merged)) for merged in (weak, middling, strong)] == [3, 2, 1]
    assert weak[0] == weak[1]
    assert middling[2] == middling[3] != middling[0] == middling[1]


def test_pieces_of_one_surface_become_one_however_it_is_lit(monkeypatch):
    picture, shown = lit_discs(240)
    y, x = np.mgrid[:240, :240] // 48
    tiles = 25 * shown + 5 * y + x
    monkeypatch.setattr(segmentation, "felzenszwalb", lambda *_, **__: tiles)
    monkeypatch.setattr("training.photographs.pieces._STRENGTH", 1.5)
    lab = rgb2lab(picture) / 100
    pieces = cut(lab, _edges(lab), np.zeros(shown.shape, np.int32))
    assert_three_regions([pieces], shown, 10)
    assert np.unique(pieces).tolist() == [0, 1, 2]
    monkeypatch.setattr("training.photographs.pieces._STRENGTH", 0.1)
    assert len(np.unique(cut(lab, _edges(lab), np.zeros(shown.shape, np.int32)))) > 10


def test_narrow_pieces_go_to_the_nearest_of_their_thing():
    labels = np.zeros((30, 50), np.int32)
    labels[:, 35:] = 1
    labels[8:10, 20:22] = 2  # a thing that is narrow itself
    pieces = labels.astype(np.intp) * 10
    pieces[:, :9] = 1
    pieces[:, 31:35] = 2  # along the other thing
    pieces[12:15, 36:] = 11
    absorbed = absorb(pieces, labels, 4)
    assert (absorbed[:, :9] == 1).all()
    assert (absorbed[:, 31:35] == 0).all()
    assert (absorbed[:, 35:] == 10).all()
    assert (absorbed[8:10, 20:22] == 20).all()
    assert np.unique(absorbed).tolist() == [0, 1, 10, 20]


AREAS = {36, 80, 144}  # of the things of three levels


@pytest.fixture
def three():
    """Flat pictures of 32 x 32 pixels; the second has a region in a part in a thing, of other sizes each."""
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 32, 32)
    levels = 2 * torch.arange(9).view(3, 3, 1, 1).repeat(1, 1, 32, 32)
    levels[1, 0, 8:14, 8:14] += 1
    levels[1, 1, 8:16, 8:18] += 1
    levels[1, 2, 7:19, 7:19] += 1
    return Scenes(images, -1 - levels)


def near(inside):
    """Pixels of bool [S, S] and those next to them."""
    return torch.nn.functional.max_pool2d(inside[None].float(), 3, 1, 1)[0] > 0


def test_nothing_is_pasted_that_covers_too_much_or_was_not_asked_for(three):
    for seed in range(8):
        for share, largest in ((0.0, 1.1), (1.0, 0.0)):
            same = paste_things(Draw(seed, "cpu"), three, share, largest)
            assert all(torch.equal(new, old) for new, old in zip(same, three, strict=True))


def test_a_pasted_thing_brings_its_pixels_and_labels(three):
    areas = set()
    for seed in range(200):
        images, levels = paste_things(Draw(seed, "cpu"), three, 1.0, 0.5)
        assert torch.equal(images[:2], three.images[:2])  # what lies before these covers all of its picture
        assert torch.equal(levels[:2], three.levels[:2])
        pasted = levels[2, 0] <= -_PASTED
        areas.add(int(pasted.sum()))
        assert torch.equal(levels[2], torch.where(pasted, three.levels[1] - _PASTED, three.levels[2]))
        assert (images[2, :, ~near(pasted)] == 1).all()
        assert (images[2, :, pasted & ~near(~pasted)] == 0.5).all()
    assert areas == AREAS | {0}  # without the surroundings, which cover more than a half
