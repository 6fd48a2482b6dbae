"""What tests of training share."""

import pytest
import torch

from training.photographs.crops import Photographs
from training.scenes.scenery import draw_scene


@pytest.fixture(scope="session")
def patterned():
    """Two "photographs" of noise, each half a region."""
    images = torch.randint(256, (2, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    levels = torch.arange(0, 8, 2, dtype=torch.int32).view(4, 1, 1).repeat(2, 1, 80, 80)
    levels[..., 40:] += 1
    return Photographs(images, levels, images)


@pytest.fixture(scope="session")
def first_scenes():
    """Those of three seeds, which take seconds: who asks for them is of the xdist_group "scenes"."""
    return [draw_scene(seed) for seed in range(3)]
