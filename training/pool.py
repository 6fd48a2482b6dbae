"""The most recent scenes, each shown in several steps among changing others: drawing takes longer than a step."""

from __future__ import annotations

import torch

from training.batch import Pictures
from training.scenes.randomness import Draw


class Pool:
    """Keeps so many pictures, the newest in the place of the oldest."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0  # of all that were added
        self._kept: Pictures | None = None

    def add(self, pictures: Pictures) -> None:
        """Takes pictures in. Colours are rounded to a byte."""
        pictures = pictures._replace(images=(pictures.images * 255).round().to(torch.uint8))
        if self._kept is None:
            self._kept = Pictures(*(x.new_empty(self.size, *x.shape[1:]) for x in pictures))
        place = torch.arange(self.count, self.count + len(pictures.levels), device=pictures.levels.device) % self.size
        for mine, new in zip(self._kept, pictures, strict=True):
            mine[place] = new
        self.count += len(place)

    def pick(self, draw: Draw, count: int) -> Pictures:
        """Different ones by chance, mirrored and turned by chance. Raises ValueError where there are too few."""
        filled = min(self.count, self.size)
        if self._kept is None or filled < count:
            raise ValueError(f"the pool has {filled} pictures, not {count}")
        chosen = draw.pick(torch.ones(1, filled, device=draw.device), count)[0]
        images, levels = (x[chosen] for x in self._kept)
        mirror, turn = draw.chance(2, count, 1, 1, 1, of=0.5)
        images, levels = (torch.where(mirror, x.flip(3), x) for x in (images, levels))
        images, levels = (torch.where(turn, x.transpose(2, 3), x) for x in (images, levels))
        return Pictures(images.float() / 255, levels)
