"""Pictures one at a time: drawn scenes and crops of photographs, as a camera sees them, with labels of islands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from training.photographs.crops import Photographs, crop_photographs
from training.scenes.camera import photograph
from training.scenes.islands import with_islands
from training.scenes.randomness import Draw
from training.scenes.scenes import SceneConfig, Scenes, draw_plan, paint
from training.scenes.textures import draw_textures

SIDE = 512
_BANK = 25  # scenes in a row that share their textures
_TEXTURES = 28


def _see(draw: Draw, scenes: Scenes) -> Scenes:
    """As a camera sees it; levels become those of islands and those given, [B, 6, S, S]."""
    return Scenes(photograph(draw, scenes.images), with_islands(scenes.levels))


@lru_cache(maxsize=1)  # the next scene mostly wants the same: each process draws those of a bank once
def _draw_bank(bank: int, device: torch.device | str) -> Tensor:
    """The textures that scenes of `_BANK` seeds share."""
    return draw_textures(Draw(bank * _BANK, device), _TEXTURES, SIDE)


def draw_scene(seed: int, device: torch.device | str = "cpu") -> Scenes:
    """A full scene, with no photograph in it. What a seed gives does not depend on what was drawn before."""
    draw = Draw(seed, device)
    plan = draw_plan(draw, SceneConfig(), 1, SIDE, _TEXTURES)
    return _see(draw, paint(plan, _draw_bank(seed // _BANK, device)))


def _draw_arrays(seed: int) -> list[NDArray[Any]]:
    """A scene to be sent: tensors would stay in shared memory, of which containers have little."""
    return [field.numpy() for field in draw_scene(seed)]


def draw_ahead(seeds: Iterable[int], workers: int) -> Iterator[Scenes]:
    """Scenes in the order of their seeds, on the CPU, drawn by so many processes, each two ahead at most."""
    waiting = deque[Future[list[NDArray[Any]]]]()
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for seed in seeds:
            waiting.append(pool.submit(_draw_arrays, seed))
            if len(waiting) > 2 * workers:
                yield Scenes(*map(torch.from_numpy, waiting.popleft().result()))
        for drawn in waiting:
            yield Scenes(*map(torch.from_numpy, drawn.result()))


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
