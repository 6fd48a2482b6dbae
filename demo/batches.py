"""Batches for the GPU: drawn scenes and crops of photographs, many at a time, with prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from demo.camera import photograph
from demo.hierarchies import Photographs, crop_photographs
from demo.islands import with_islands
from demo.randomness import Draw
from demo.scenery import choose_prompts
from demo.scenes import Scenes, draw_plan, paint
from demo.schedule import Stage
from demo.textures import draw_textures

FIRST_SEED = 1_000_000  # of training scenes; evaluation has those below
_TEXTURE_SEED = 500_000_000
_TEXTURE_STEPS = 100  # steps until textures are drawn anew
_PROMPT_SEED = 700_000_000


class Batch(NamedTuple):
    """Images float [B, 3, S, S] from 0 to 1, labels int64 [B, 6, S, S], prompts int64 [B, P] (pixels counted along
    rows), and for each image whether its labels are the truth, float [B].
    """

    images: Tensor
    levels: Tensor
    pixels: Tensor
    drawn: Tensor


class Batches:
    """Batches for one stage."""

    def __init__(
        self, stage: Stage, index: int, device: torch.device, compiled: bool, photographs: Photographs | None
    ) -> None:
        """`index` of the stage chooses the seeds."""
        self.stage, self.index, self.device = stage, index, device
        self.photographs = photographs if stage.photograph_share else None
        self._paint: Callable[..., Scenes] = torch.compile(paint, dynamic=False) if compiled else paint
        self._borrowed = None if photographs is None else torch.cat([photographs.textures, photographs.images])
        self._textures = torch.empty(0)
        self._texture_seed = -1
        self._scenes_of = -1
        self._scenes = torch.empty(0), torch.empty(0)

    def draw(self, step: int) -> Batch:
        """The batch of a step, always the same. Scenes are shown in `reuse` steps in a row, with other prompts."""
        stage = self.stage
        if step // stage.reuse != self._scenes_of:
            self._scenes_of = step // stage.reuse
            self._scenes = self._draw_scenes(self._scenes_of * stage.reuse)
        images, levels = self._scenes
        photographs = self._count_photographs()
        drawn = (torch.arange(stage.batch, device=self.device) < stage.batch - photographs).float()
        prompts = Draw(_PROMPT_SEED + FIRST_SEED * self.index + step, self.device)
        return Batch(images, levels, choose_prompts(prompts, levels, stage.prompts, stage.uniform_prompts), drawn)

    def _count_photographs(self) -> int:
        return round(self.stage.batch * self.stage.photograph_share) if self.photographs else 0

    def _draw_scenes(self, step: int) -> tuple[Tensor, Tensor]:
        """Images as a camera sees them and labels of islands, of as many scenes and photographs as a batch has."""
        stage = self.stage
        self._renew_textures(step)
        draw = Draw(FIRST_SEED * (self.index + 1) + step, self.device)
        photographs = self._count_photographs()
        plan = draw_plan(draw, stage.scenes, stage.batch - photographs, stage.resolution, stage.textures)
        images, levels = self._paint(plan, self._textures)
        if self.photographs:
            cropped = crop_photographs(draw, self.photographs, photographs, stage.resolution)
            images, levels = torch.cat([images, cropped.images]), torch.cat([levels, cropped.levels])
        return photograph(draw, images, stage.camera), with_islands(levels)

    def _renew_textures(self, step: int) -> None:
        seed = _TEXTURE_SEED + 1_000_000 * self.index + step // _TEXTURE_STEPS
        if seed != self._texture_seed:
            borrowed = None if self._borrowed is None else self._borrowed.float() / 255
            draw = Draw(seed, self.device)
            self._textures = draw_textures(draw, self.stage.textures, self.stage.resolution, borrowed)
            self._texture_seed = seed
