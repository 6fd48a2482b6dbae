"""Pictures as a frozen image encoder sees them, kept in half precision, so that a CPU can train what comes after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from demo.hierarchies import load_photographs
from demo.network import normalise
from demo.scenery import draw_crops, draw_scenes
from demo.scenes import Scenes
from sam2_amg.encoder import ImageFeatures, encode

FIRST_SEED = 3_000_000  # of scenes: neither training nor evaluation draws these
_FIRST_CROP = 3_500_000


@dataclass(frozen=True)
class Embedded:
    """One picture: features float16 [1, C, h, w], `levels` int16 [1, 3, S, S]; `drawn` where these are the truth."""

    features: ImageFeatures
    levels: Tensor
    drawn: bool


def _number_anew(levels: Tensor) -> Tensor:
    """The same labels, from 0 without gaps, int16."""
    numbered = [level.unique(return_inverse=True)[1] for level in levels[0]]
    return torch.stack(numbered).to(torch.int16)[None]


@torch.no_grad()
def _embed(model: SAM2Base, scenes: Scenes, drawn: bool) -> Embedded:
    features = encode(model, normalise(scenes.images))
    fine, coarse = (x.half() for x in features.high_res_features)
    return Embedded(ImageFeatures(features.image_embedding.half(), (fine, coarse)), _number_anew(scenes.levels), drawn)


def embed_pictures(model: SAM2Base, scenes: int, crops: int, workers: int, skip: int = 0) -> list[Embedded]:
    """Drawn scenes, then crops of photographs, on the device of the model, but the first `skip`. About 4 MB each."""
    device = next(model.parameters()).device
    first, first_crop = FIRST_SEED + skip, _FIRST_CROP + skip
    sources: list[tuple[Iterable[Scenes], bool]] = [(draw_scenes(range(first, first + scenes), device), True)]
    if crops:
        photographs = load_photographs(workers).to(device)
        sources.append((draw_crops(range(first_crop, first_crop + crops), photographs), False))
    pictures: list[Embedded] = []
    for source, drawn in sources:
        for picture in source:
            pictures.append(_embed(model, picture, drawn))
            if len(pictures) % 50 == 0:
                print(f"{len(pictures)} of {scenes + crops} pictures", flush=True)
    return pictures


def gather(pictures: Sequence[Embedded]) -> tuple[ImageFeatures, Tensor, Tensor]:
    """A batch: features float32, levels int64 [B, 3, S, S], and which of the pictures are drawn, float [B]."""
    fine, coarse = (
        torch.cat([picture.features.high_res_features[i] for picture in pictures]).float() for i in range(2)
    )
    embedding = torch.cat([picture.features.image_embedding for picture in pictures]).float()
    levels = torch.cat([picture.levels for picture in pictures]).long()
    drawn = torch.tensor([float(picture.drawn) for picture in pictures], device=levels.device)
    return ImageFeatures(embedding, (fine, coarse)), levels, drawn


def save(pictures: Sequence[Embedded], path: Path) -> None:
    """Writes pictures to a file."""
    rows = [(p.features.image_embedding, *p.features.high_res_features, p.levels, p.drawn) for p in pictures]
    torch.save(rows, path)


def load(path: Path, device: torch.device) -> list[Embedded]:
    """What `save` wrote."""
    rows = torch.load(path, map_location=device, weights_only=True)
    return [Embedded(ImageFeatures(embedding, (fine, coarse)), *rest) for embedding, fine, coarse, *rest in rows]
