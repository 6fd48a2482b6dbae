"""Light on drawn scenes and photographs."""

import pytest
import torch
from helpers import CPU

from training.scenes.light import cast_shadows, illuminate, reflect, relight, shine
from training.scenes.randomness import Draw


def test_light_changes_slowly_and_much():
    grey = torch.full((16, 3, 64, 64), 0.4)
    lit = relight(Draw(3, CPU), grey, 0.6)
    assert (lit[:, :, 1:] / lit[:, :, :-1]).log().abs().max() < 0.2  # no edge from pixel to pixel
    darkest, brightest = lit.flatten(1).amin(1), lit.flatten(1).amax(1)
    assert (brightest / darkest).median() > 1.3
    assert lit.mean() < 0.4  # what is too bright loses its outlines


@pytest.mark.parametrize(("change", "sign"), [(cast_shadows, -1), (shine, 1)])
def test_shadows_darken_and_highlights_brighten_some_pictures(change, sign):
    grey = torch.full((32, 3, 64, 64), 0.4)
    difference = sign * (change(Draw(3, CPU), grey, 0.7) - grey)
    assert difference.min() >= 0
    changed = difference.flatten(1).amax(1) > 0.01
    assert 4 < changed.sum() < 28
    assert difference.flatten(1).amax(1).max() > 0.1


def test_a_reflection_leaves_the_brightness_and_adds_contrast():
    grey = torch.full((32, 3, 64, 64), 0.4)
    others = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = reflect(Draw(3, CPU), grey, others, 0.3)
    torch.testing.assert_close(seen.mean((2, 3)), grey.mean((2, 3)))
    assert seen.std((1, 2, 3)).max() > 0.02
    assert 4 < (seen.std((1, 2, 3)) < 1e-6).sum() < 28


def test_no_light_changes_nothing():
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(illuminate(Draw(0, CPU), images, images.flip(0), 0.0), images)
    lit, alone = (illuminate(Draw(0, CPU), images, others, 1.0) for others in (images.flip(0), None))
    assert 0 <= lit.min() <= lit.max() <= 1
    assert (lit - images).abs().mean() > 0.05
    assert (lit - alone).abs().mean() > 0.005  # what is reflected
