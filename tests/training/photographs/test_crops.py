"""Crops of photographs."""

import torch
from helpers import CPU

from training.photographs.crops import Photographs, crop_photographs
from training.scenes.randomness import Draw


def test_labels_of_photographs_say_that_they_are_no_truth(patterned):
    scenes = crop_photographs(Draw(0, CPU), patterned, 4, 64)
    assert scenes.levels.max() < 0


def test_crops_have_three_levels_of_four_in_a_row(patterned):
    levels = crop_photographs(Draw(0, CPU), patterned, 16, 64).levels  # [16, 3, 64, 64]
    kinds = (-1 - levels) // 2
    seen = {tuple(kind.flatten(1).unique(dim=1).flatten().tolist()) for kind in kinds}
    assert seen == {(0, 1, 2), (1, 2, 3)}


def test_some_crops_have_their_colours_exchanged():
    """Three flat colours: a crop keeps them, whichever channel each is in."""
    flat = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 80, 80)
    photographs = Photographs(flat, torch.zeros(1, 4, 80, 80, dtype=torch.int32), flat)
    colours = (crop_photographs(Draw(0, CPU), photographs, 24, 64).images[:, :, 32, 32] * 255).round()
    assert colours.sort(1).values.equal(torch.tensor([10.0, 100.0, 250.0]).expand(24, 3))
    kept = (colours == torch.tensor([10.0, 100.0, 250.0])).all(1).sum()
    assert 12 <= kept < 24  # a half, and of the others a sixth by chance
