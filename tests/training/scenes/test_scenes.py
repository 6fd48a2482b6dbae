"""Drawn scenes, as a camera sees them."""

import pytest
import torch
from helpers import CPU

from training.scenes import scenery
from training.scenes.camera import photograph
from training.scenes.islands import with_islands
from training.scenes.randomness import Draw
from training.scenes.scenery import draw_ahead, draw_scene
from training.scenes.scenes import SceneConfig, draw_plan, paint
from training.scenes.textures import draw_textures


@pytest.fixture(scope="module")
def small_scenes():
    draw = Draw(7, CPU)
    textures = draw_textures(draw, 3, 64)
    return paint(draw_plan(draw, SceneConfig(), 2, 64, 3), textures)


def test_scenes_of_a_seed_are_the_same_and_others_differ(small_scenes):
    draw = Draw(7, CPU)
    textures = draw_textures(draw, 3, 64)
    again = paint(draw_plan(draw, SceneConfig(), 2, 64, 3), textures)
    assert torch.equal(small_scenes.images, again.images)
    assert torch.equal(small_scenes.levels, again.levels)
    other = paint(draw_plan(Draw(8, CPU), SceneConfig(), 2, 64, 3), textures)
    assert not torch.equal(small_scenes.levels, other.levels)


def test_a_scene_does_not_depend_on_those_drawn_before(monkeypatch):
    """Its textures are those of 25 scenes, and stay with a process until it needs others."""
    monkeypatch.setattr(scenery, "SIDE", 64)
    drawn = {}
    try:
        for order in ((24, 25, 26), (26, 24, 25)):
            scenery._draw_bank.cache_clear()
            for seed in order:
                scene = draw_scene(seed)
                drawn.setdefault(seed, scene)
                assert torch.equal(scene.images, drawn[seed].images)
                assert torch.equal(scene.levels, drawn[seed].levels)
    finally:
        scenery._draw_bank.cache_clear()
    assert not torch.equal(drawn[24].images, drawn[25].images)


@pytest.mark.slow
@pytest.mark.xdist_group("scenes")
def test_scenes_drawn_ahead_come_in_order_and_are_the_same(first_scenes):
    seeds = (2, 0, 1)  # one more than are drawn ahead
    for seed, scene in zip(seeds, draw_ahead(seeds, 1), strict=True):
        assert torch.equal(scene.images, first_scenes[seed].images)
        assert torch.equal(scene.levels, first_scenes[seed].levels)


@pytest.mark.slow
def test_scenes_drawn_ahead_by_two_processes_come_in_order_and_are_the_same():
    for seed, scene in zip((24, 25), draw_ahead((24, 25), 2), strict=True):
        again = draw_scene(seed)
        assert torch.equal(scene.images, again.images)
        assert torch.equal(scene.levels, again.levels)


def test_levels_nest(small_scenes):
    for levels in small_scenes.levels:
        for fine, coarse in ((levels[0], levels[1]), (levels[1], levels[2])):
            for label in fine.unique():
                assert len(coarse[fine == label].unique()) == 1


def test_camera_keeps_images_in_range(small_scenes):
    images = photograph(Draw(1, CPU), small_scenes.images)
    assert images.shape == small_scenes.images.shape
    assert images.min() >= 0
    assert images.max() <= 1


def test_islands_are_told_apart():
    levels = torch.zeros(1, 2, 40, 40, dtype=torch.int64)
    levels[0, :, 10:20] = 5
    levels[0, 0, 12:14, 3:9] = 7
    levels[0, 0, 30:, 20] = 7
    levels[0, 0, 39, 20:] = 7  # one island, bent
    islands = with_islands(levels)
    assert islands[:, 2:].equal(levels)
    islands = islands[:, :2]
    assert [len(level.unique()) for level in islands[0]] == [5, 3]
    assert islands[0, 0, 30, 20] == islands[0, 0, 39, 39] != islands[0, 0, 13, 4]
    for fine in islands[0, 0].unique():
        assert len(islands[0, 1][islands[0, 0] == fine].unique()) == 1
