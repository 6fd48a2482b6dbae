"""Photographs under free licences that pinned packages ship, and regions of them at three strengths.

The regions are no ground truth: small pieces (Felzenszwalb and Huttenlocher's) are merged across their weakest
boundaries, as Arbelaez et al. do (2011, "Contour detection and hierarchical image segmentation"), here by the mean
change of colour along them: where light changes slowly, boundaries are weak. They are there to show the model
textures, light and outlines as they are in the world.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.randomness import Draw
from demo.scenes import Scenes

SIDE = 640
# How strong a boundary must be to part regions, parts and things, in shares of the picture's ninth decile of edges.
STRENGTHS = (0.35, 0.55, 0.8)
_SMALLEST = (300, 600, 1200)  # pixels
_FINEST = 150  # pixels of the pieces that are merged
_OFFSET = 4096  # between the labels of strengths
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


def _edges(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much colours change, at two scales. [SIDE, SIDE, 3] -> [SIDE, SIDE]"""
    from scipy.ndimage import gaussian_gradient_magnitude

    strength = np.zeros(lab.shape[:2])
    for sigma in (1.5, 3.0):
        changes = [gaussian_gradient_magnitude(lab[..., channel], sigma) for channel in range(3)]
        # Light changes lightness most, and so hue counts twice.
        strength += 0.5 * sigma * np.sqrt(changes[0] ** 2 + 2 * changes[1] ** 2 + 2 * changes[2] ** 2)
    return strength


def _mean_strength(graph: Any, lost: int, merged: int, neighbour: int) -> dict[str, float]:
    """The boundary of two regions that become one with a neighbour of theirs: its mean strength, and its length."""
    sides = [graph[node][neighbour] for node in (lost, merged) if graph.has_edge(node, neighbour)]
    count = sum(side["count"] for side in sides)
    return {"count": count, "weight": sum(side["count"] * side["weight"] for side in sides) / count}


def _merge(labels: NDArray[np.intp], edges: NDArray[np.float64], strength: float) -> NDArray[np.intp]:
    """Regions whose boundaries are weaker than `strength` become one, the weakest first."""
    from skimage.graph import merge_hierarchical, rag_boundary

    return merge_hierarchical(
        labels,
        rag_boundary(labels, edges),
        thresh=strength,
        rag_copy=False,
        in_place_merge=True,
        merge_func=lambda *_: None,
        weight_func=_mean_strength,
    )


def _smooth(labels: NDArray[np.intp], smallest: int) -> NDArray[np.int32]:
    """Regions of `smallest` pixels or more, grown over the others, with smooth outlines."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    sizes = np.bincount(labels.ravel())
    nearest = distance_transform_edt(sizes[labels] < smallest, return_distances=False, return_indices=True)
    labels = labels[tuple(nearest)]
    best = np.zeros(labels.shape, np.float32)
    smoothed = np.zeros(labels.shape, np.int32)
    for label in np.unique(labels):
        weight = gaussian_filter((labels == label).astype(np.float32), 2.5)
        smoothed[weight > best] = label
        best = np.maximum(best, weight)
    return smoothed


def _segment(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Regions of every strength, outlines smoothed. int32 [3, SIDE, SIDE]"""
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_bilateral
    from skimage.segmentation import felzenszwalb

    lab = rgb2lab(denoise_bilateral(image, sigma_color=0.08, sigma_spatial=3, channel_axis=2, mode="edge")) / 100
    edges = _edges(lab)
    labels = felzenszwalb(lab, scale=60, sigma=0.8, min_size=_FINEST)
    levels: list[NDArray[np.int32]] = []
    for strength, smallest in zip(STRENGTHS, _SMALLEST, strict=True):
        labels = _merge(labels, edges, strength * np.quantile(edges, 0.9))
        levels.append(_smooth(labels, smallest) + len(levels) * _OFFSET)
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

    The name says how they were merged.
    """
    path = directory / f"photographs-{'-'.join(map(str, STRENGTHS + _SMALLEST))}.pt"
    if not path.is_file():
        temporary = path.with_suffix(".part")
        torch.save(load_photographs(workers)._asdict(), temporary)
        temporary.rename(path)
    return Photographs(**torch.load(path, weights_only=True))


def crop_photographs(draw: Draw, photographs: Photographs, count: int, size: int) -> Scenes:
    """Random photographs: turned a little, flipped, zoomed, stretched, as scenes of `size` x `size` pixels.

    They are few: every second has its red, green and blue exchanged, so that colours are not learned by heart.
    Labels are negative, for they are not the truth.
    """
    which = draw.integer(count, below=len(photographs.images))
    zoom = draw.log_uniform(count, low=0.4, high=1.0)
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
    images = photographs.images[which[:, None], channels].float() / 255
    labels = photographs.levels[which].float()
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return Scenes(images.clamp(0, 1), -1 - labels.long())
