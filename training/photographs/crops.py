"""Photographs under free licences that pinned packages ship, and crops of them, with the things that are in them.

Outlines are drawn by hand (`outlines.py`), and not everything has one: labels teach masks, but not what predicted IoU
should be. Photographs are there to show the model textures, light and outlines as they are in the world.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.photographs.outlines import PATH, read_outlines, segment
from training.scenes.randomness import Draw
from training.scenes.scenes import Scenes

SIDE = 640
_LABELS = 1024  # of a photograph, at most; those of two differ
_PASTED = 1 << 16  # between the labels of a picture and those of what is pasted into it
# scikit-image: public domain or CC0; coins: no known restrictions. scikit-learn: CC BY 2.0, by danielbuechele and
# vultilion (flickr.com). Matplotlib: public domain (U.S. Navy).
SEGMENTED = {
    "skimage": ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
    "matplotlib": ("grace_hopper.jpg",),
}
TEXTURES = {"skimage": ("brick.png", "grass.png", "gravel.png")}  # CC0
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}


class Photographs(NamedTuple):
    """`images` uint8 [n, 3, SIDE, SIDE]; `levels` int32 [n, 4, SIDE, SIDE]; `textures` uint8 [m, 3, SIDE, SIDE]."""

    images: Tensor
    levels: Tensor
    textures: Tensor

    def to(self, device: torch.device) -> Photographs:
        """The same on a device."""
        return Photographs(*(tensor.to(device) for tensor in self))


def _read(package: str, name: str) -> NDArray[np.uint8]:
    """A photograph of a package, squeezed into a square. uint8 [SIDE, SIDE, 3]"""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"{package} is not installed; training wants its photographs (--photograph_share 0 does without)"
        )
    path = Path(spec.origin).parent / _FOLDERS[package] / name
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _stack(images: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def load_photographs(workers: int) -> Photographs:
    """Reads and segments, each photograph in a process of its own. Raises ImportError without the packages."""
    outlines = read_outlines()
    drawn = [(package, name) for package, names in SEGMENTED.items() for name in names]
    images = [_read(package, name) for package, name in drawn]
    textures = [_read(package, name) for package, names in TEXTURES.items() for name in names]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        levels = np.stack(list(pool.map(segment, images, [outlines[name] for _, name in drawn])))
    levels += _LABELS * np.arange(len(levels), dtype=np.int32)[:, None, None, None]
    return Photographs(_stack(images), torch.from_numpy(levels), _stack(textures))


def kept_file(directory: Path) -> Path:
    """Where `read_photographs` keeps them. The name says of which outlines, and of which code."""
    made_by = (PATH, *(Path(__file__).with_name(f"{name}.py") for name in ("crops", "outlines", "pieces")))
    return directory / f"photographs-{crc32(b''.join(part.read_bytes() for part in made_by)):08x}.pt"


def read_photographs(directory: Path, workers: int) -> Photographs:
    """What `load_photographs` returns, from a file in `directory`; writing it, the first time, takes a while."""
    path = kept_file(directory)
    if not path.is_file():
        temporary = path.with_suffix(".part")
        torch.save(load_photographs(workers)._asdict(), temporary)
        temporary.rename(path)
    return Photographs(**torch.load(path, weights_only=True))


def crop_photographs(draw: Draw, photographs: Photographs, count: int, size: int) -> Scenes:
    """Random photographs: turned a little, flipped, zoomed, stretched, as scenes of `size` x `size` pixels.

    They are few: every second has its red, green and blue exchanged, so that colours are not learned by heart. Beyond
    its border a photograph is mirrored, so that things are smaller, too. Levels are pieces, regions and parts, or
    regions, parts and things. Labels are negative, for they are not the truth.
    """
    which = draw.integer(count, below=len(photographs.images))
    zoom = draw.log_uniform(count, low=0.4, high=1.3)
    stretch = torch.exp(draw.uniform(count, low=-0.2, high=0.2))
    angle = 0.15 * draw.normal(count)
    flip = torch.where(draw.chance(count, of=0.5), -1.0, 1.0)
    shift = draw.uniform(count, 2, low=-1, high=1) * (1 - zoom)[:, None]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [
        zoom * stretch * cosine * flip,
        -zoom * sine,
        shift[:, 0],
        zoom * sine,
        zoom / stretch * cosine,
        shift[:, 1],
    ]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [count, 3, size, size], align_corners=False)
    channels = torch.where(
        draw.chance(count, 1, of=0.5), draw.uniform(count, 3).argsort(1), torch.arange(3, device=draw.device)
    )
    finest = draw.integer(count, 1, below=2)
    images = photographs.images[which[:, None], channels].float() / 255
    labels = photographs.levels[which[:, None], finest + torch.arange(3, device=draw.device)].float()
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return Scenes(images.clamp(0, 1), -1 - labels.long())


def paste_things(draw: Draw, scenes: Scenes, share: float, largest: float = 0.5) -> Scenes:
    """The scenes, into a `share` of which a thing, part or region of the scene before is pasted, with soft outlines.

    So things are known wherever they stand (Ghiasi et al. 2021, "Simple copy-paste is a strong data augmentation method
    for instance segmentation"). What covers more than `largest` of its picture is not pasted.
    """
    count, _, size, _ = scenes.levels.shape
    images, levels = scenes.images.roll(1, 0), scenes.levels.roll(1, 0)
    level = draw.integer(count, below=3)
    place = draw.integer(count, below=size * size)
    labels = levels[torch.arange(count, device=draw.device), level].flatten(1)  # [B, S * S]
    shown = labels == labels.gather(1, place[:, None])
    pasted = draw.chance(count, of=share) & (shown.float().mean(1) < largest)
    shown = (shown & pasted[:, None]).view(count, 1, size, size)
    cover = F.avg_pool2d(shown.float(), 3, 1, 1, count_include_pad=False)
    return Scenes(torch.lerp(scenes.images, images, cover), torch.where(shown, levels - _PASTED, scenes.levels))
