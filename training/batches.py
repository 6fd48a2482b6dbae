"""Batches for the GPU: drawn scenes and crops of photographs, many at a time, with prompts."""

from __future__ import annotations

import torch

from training.batch import Batch, Pictures
from training.photographs.crops import Photographs, crop_photographs, paste_things
from training.pool import Pool
from training.ranks import Ranks
from training.scenes.camera import photograph
from training.scenes.islands import with_islands
from training.scenes.light import illuminate
from training.scenes.randomness import Draw
from training.scenes.rooms import draw_room, paint_room
from training.scenes.scenery import choose_prompts
from training.scenes.scenes import draw_plan, paint
from training.scenes.textures import draw_textures
from training.schedule import Stage

FIRST_SEED = 1_000_000  # of training scenes; evaluation has those below
_TEXTURE_SEED = 500_000_000
_TEXTURE_STEPS = 100  # steps until textures are drawn anew
_PROMPT_SEED = 700_000_000
_SEEDS_A_RUN = 50_000  # of a stage, steps times processes: those of runs with different seeds do not meet
RUNS = FIRST_SEED // _SEEDS_A_RUN  # whose seeds meet those of no other stage


class Batches:
    """Batches for one stage, from a pool of the most recent scenes."""

    def __init__(
        self,
        stage: Stage,
        index: int,
        device: torch.device,
        compiled: bool,
        photographs: Photographs | None,
        ranks: Ranks,
        seed: int = 0,
    ) -> None:
        """`index` of the stage and `seed` choose the seeds of scenes, of which each of `ranks` has its own."""
        self.stage, self.index, self.device = stage, index, device
        self.ranks = ranks
        self.first_seed = seed * _SEEDS_A_RUN
        self.photographs = photographs if stage.photograph_share else None
        self._paint = torch.compile(paint, dynamic=False) if compiled else paint
        self._paint_room = torch.compile(paint_room, dynamic=False) if compiled else paint_room
        self._borrowed = None if photographs is None else torch.cat([photographs.textures, photographs.images])
        self._textures = torch.empty(0)
        self._texture_seed = -1
        self._pool = Pool(stage.pool * stage.batch)

    def draw(self, step: int) -> Batch:
        """The batch of a step. New scenes come in every `reuse` steps, so that each is shown as often."""
        stage = self.stage
        if step % stage.reuse == 0 or not self._pool.count:
            self._pool.add(self._draw_scenes(step))
        draw = Draw(_PROMPT_SEED + self._seed(step), self.device)
        pictures = self._pool.pick(draw, stage.batch)
        prompts = choose_prompts(draw, pictures.levels, stage.prompts, stage.uniform_prompts)
        return Batch(*pictures, prompts, choose_prompts(draw, pictures.levels, stage.compared, 0.5))

    def _seed(self, step: int) -> int:
        """Of what this process draws for a step of this stage: different for every step and process."""
        return FIRST_SEED * self.index + self.first_seed + step * self.ranks.count + self.ranks.rank

    def _draw_scenes(self, step: int) -> Pictures:
        """Images as a camera sees them and labels of islands, of as many scenes and photographs as a batch has.

        Flat scenes come first, of which the first have a photograph behind their things; then scenes in space; then
        photographs.
        """
        stage = self.stage
        self._renew_textures(step)
        draw = Draw(FIRST_SEED + self._seed(step), self.device)
        cropped = round(stage.batch * stage.photograph_share) if self.photographs else 0
        rooms = round(stage.batch * stage.rooms)
        flat = stage.batch - cropped - rooms
        plan = draw_plan(draw, stage.scenes, flat, stage.resolution, stage.textures)
        drawn = [self._paint(plan, self._textures)]
        if rooms:
            room = draw_room(draw, rooms, stage.resolution, stage.textures)
            drawn.append(self._paint_room(room, self._textures))
        images, levels = (torch.cat(part) for part in zip(*drawn, strict=True))
        reflected = None
        if self.photographs:
            crops = crop_photographs(draw, self.photographs, stage.batch, stage.resolution)
            crops = paste_things(draw, crops, stage.pasted)
            before = round(flat * stage.before_photographs)
            behind = levels[:before, 2:] <= stage.scenes.backgrounds  # [before, 1, S, S]
            images, levels = (
                torch.cat([torch.where(behind, crop[:before], scene[:before]), scene[before:], crop[len(scene) :]])
                for crop, scene in zip(crops, (images, levels), strict=True)
            )
            reflected = crops.images.roll(1, 0)
        images = photograph(draw, illuminate(draw, images, reflected, stage.light), stage.camera)
        return Pictures(images, with_islands(levels).int())

    def _renew_textures(self, step: int) -> None:
        seed = _TEXTURE_SEED + 1_000_000 * self.index + (self.first_seed + step) // _TEXTURE_STEPS
        if seed != self._texture_seed:
            borrowed = None if self._borrowed is None else self._borrowed.float() / 255
            draw = Draw(seed, self.device)
            self._textures = draw_textures(draw, self.stage.textures, self.stage.resolution, borrowed)
            self._texture_seed = seed
