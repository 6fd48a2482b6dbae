"""Photographs under free licences that pinned packages ship, and regions of them at three scales.

The regions are no ground truth: Felzenszwalb and Huttenlocher's graph segmentation follows colour edges. They are
there to show the model textures, light and outlines as they are in the world.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.randomness import Draw
from demo.scenes import Scenes

SIDE = 640
# Finer scales follow light and texture: they tore plain surfaces into patches, and taught that.
SCALES = (200, 450, 900)  # of regions, parts, things
_SMALLEST = (500, 1200, 2500)  # pixels
_OFFSET = 4096  # between the labels of scales
# scikit-image: public domain or CC0. scikit-learn: CC BY 2.0, by danielbuechele and vultilion (flickr.com).
SEGMENTED = {
    "skimage": ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg"),
    "sklearn": ("china.jpg", "flower.jpg"),
}
TEXTURES = {"skimage": ("brick.png", "grass.png", "gravel.png")}  # CC0
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


class Photographs(NamedTuple):
    """`images` uint8 [n, 3, SIDE, SIDE]; `levels` int32 [n, 3, SIDE, SIDE]; `textures` uint8 [m, 3, SIDE, SIDE]."""

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


def _segment(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Regions at every scale, outlines smoothed. int32 [3, SIDE, SIDE]"""
    from scipy.ndimage import gaussian_filter
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_bilateral
    from skimage.segmentation import felzenszwalb

    smooth = denoise_bilateral(image, sigma_color=0.08, sigma_spatial=3, channel_axis=2)
    lab = rgb2lab(smooth) / 100
    levels: list[NDArray[np.int32]] = []
    for scale, smallest in zip(SCALES, _SMALLEST, strict=True):
        labels = felzenszwalb(lab, scale=scale, sigma=0.8, min_size=smallest)
        best = np.zeros(labels.shape, np.float32)
        smoothed = np.zeros(labels.shape, np.int32)
        for label in range(labels.max() + 1):
            weight = gaussian_filter((labels == label).astype(np.float32), 2.5)
            smoothed[weight > best] = label
            best = np.maximum(best, weight)
        levels.append(smoothed + len(levels) * _OFFSET)
    return np.stack(levels)


def _stack(images: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def load_photographs(workers: int) -> Photographs:
    """Reads and segments, each photograph in a process of its own. Raises ImportError without the packages."""
    images = [_read(package, name) for package, names in SEGMENTED.items() for name in names]
    textures = [_read(package, name) for package, names in TEXTURES.items() for name in names]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        levels = list(pool.map(_segment, images))
    return Photographs(_stack(images), torch.from_numpy(np.stack(levels)), _stack(textures))


def read_photographs(directory: Path, workers: int) -> Photographs:
    """What `load_photographs` returns, from a file in `directory`; writing it, the first time, takes a while.

    The name says which scales it has.
    """
    path = directory / f"photographs-{'-'.join(map(str, SCALES + _SMALLEST))}.pt"
    if not path.is_file():
        temporary = path.with_suffix(".part")
        torch.save(load_photographs(workers)._asdict(), temporary)
        temporary.rename(path)
    return Photographs(**torch.load(path, weights_only=True))


def crop_photographs(draw: Draw, photographs: Photographs, count: int, size: int) -> Scenes:
    """Random photographs: turned a little, flipped, zoomed, stretched, as scenes of `size` x `size` pixels.

    Their labels are negative, for they are not the truth.
    """
    which = draw.integer(count, below=len(photographs.images))
    zoom = draw.log_uniform(count, low=0.3, high=1.0)
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
    images = photographs.images[which].float() / 255
    labels = photographs.levels[which].float()
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return Scenes(images.clamp(0, 1), -1 - labels.long())
