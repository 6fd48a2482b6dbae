"""Pictures one at a time: drawn scenes and crops of photographs, as a camera sees them, with labels of islands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from demo.camera import photograph
from demo.hierarchies import Photographs, crop_photographs
from demo.islands import with_islands
from demo.randomness import Draw
from demo.scenes import SceneConfig, Scenes, draw_plan, paint
from demo.textures import draw_textures

SIDE = 512
_BANK = 25  # scenes in a row that share their textures
_TEXTURES = 28


def _see(draw: Draw, scenes: Scenes) -> Scenes:
    """As a camera sees it; levels become those of islands and those given, [B, 6, S, S]."""
    return Scenes(photograph(draw, scenes.images), with_islands(scenes.levels))


def draw_scenes(seeds: Iterable[int], device: torch.device | str = "cpu") -> Iterator[Scenes]:
    """A full scene for each seed, with no photograph in it. What a seed gives does not depend on other seeds."""
    bank, textures = -1, torch.empty(0)
    for seed in seeds:
        if seed // _BANK != bank:
            bank = seed // _BANK
            textures = draw_textures(Draw(bank * _BANK, device), _TEXTURES, SIDE)
        draw = Draw(seed, device)
        yield _see(draw, paint(draw_plan(draw, SceneConfig(), 1, SIDE, _TEXTURES), textures))


def draw_crops(seeds: Iterable[int], photographs: Photographs) -> Iterator[Scenes]:
    """A crop of a photograph for each seed."""
    for seed in seeds:
        draw = Draw(seed, photographs.images.device)
        yield _see(draw, crop_photographs(draw, photographs, 1, SIDE))


def choose_prompts(draw: Draw, levels: Tensor, count: int, uniform: float) -> Tensor:
    """Pixels to point at, [B, count]: `uniform` of them anywhere, the others in small regions as often as in large."""
    batch = len(levels)
    candidates = draw.integer(batch, 1024, below=levels.shape[2] * levels.shape[3])
    region = levels[:, 0].flatten(1).gather(1, candidates)
    alike = (region[:, :, None] == region[:, None]).sum(2)  # how many of the candidates lie in the same region
    anywhere = round(uniform * count)
    if anywhere == count:
        return candidates[:, :count]
    balanced = draw.pick(1.0 / alike.clamp_min(2), count - anywhere)
    return torch.cat([candidates[:, :anywhere], candidates.gather(1, balanced)], 1)
