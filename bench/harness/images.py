"""Which photographs are measured: named files, a folder, or drawn scenes in the sizes that cameras make."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.scenes.randomness import Draw
from training.scenes.scenes import SceneConfig, draw_plan, paint
from training.scenes.textures import draw_textures

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
# (width, height), each with how often it comes up in twenty; every third image stands upright
_SIZES = [(480, 360)] * 3 + [(640, 480)] * 5 + [(800, 600)] * 3 + [(1024, 768)] * 3 + [(1280, 720)] * 3
_SIZES += [(1600, 1200)] * 2 + [(1920, 1080)]
FIRST_SEED = 500_000  # between those of training/evaluate.py, from 0, and of training/train.py, from 1,000,000
_TEXTURES = 8
VERSION = 3  # of what a number draws: files of another version lie in another folder
_MOST_WORKERS = 8  # the largest scene takes 3 GB while it is drawn


def scene(index: int) -> NDArray[np.uint8]:
    """The drawn scene of this number, uint8 RGB [H, W, 3], from a seed that is never trained on."""
    width, height = _SIZES[(index * 7) % len(_SIZES)]
    if index % 3 == 2:
        width, height = height, width
    side = max(width, height)
    draw = Draw(FIRST_SEED + index, torch.device("cpu"))
    plan = draw_plan(draw, SceneConfig(), 1, side, _TEXTURES)
    images = paint(plan, draw_textures(draw, _TEXTURES, side)).images[0]  # [3, S, S]
    pixels = (images[:, :height, :width] * 255).round().byte()
    return pixels.permute(1, 2, 0).numpy()


def draw_scenes(count: int, folder: Path) -> list[Path]:
    """JPEG files of the first `count` scenes in `folder`; those that are there already are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"scene-{index:04}.jpg" for index in range(count)]
    missing = {index: path for index, path in enumerate(paths) if not path.exists()}
    if missing:
        workers = min(len(os.sched_getaffinity(0)), len(missing), _MOST_WORKERS)
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            drawn = pool.map(_draw_scene, missing, missing.values())
            for _ in tqdm(drawn, total=len(missing), desc="drawing", unit="scene", disable=None):
                pass
    return paths


def _draw_scene(index: int, path: Path) -> None:
    torch.set_num_threads(1)  # there is a process for each core
    part = path.with_suffix(".part")
    Image.fromarray(scene(index)).save(part, "JPEG", quality=75)
    part.replace(path)  # what has the name is whole, whenever drawing is interrupted


def find_images(source: Path) -> list[Path]:
    """The images of a folder, in order of their names, or those that a file lists, one a line."""
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES)
    else:
        found = [Path(line) for line in source.read_text().splitlines() if line.strip()]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        raise SystemExit(f"{source}: " + (f"{missing[0]} is missing" if missing else "no image in it"))
    return found
