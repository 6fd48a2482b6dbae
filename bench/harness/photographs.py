"""Crops of photographs, in the sizes that they come in: `bench/photographs.toml` lists both."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bench import ROOT
from sam2_amg.demo import PHOTOGRAPHS

LIST = ROOT / "bench" / "photographs.toml"
FEW = ("whole", "whole-mirrored", "top-left", "top-right", "bottom-left", "bottom-right", "middle")  # crops
FOLDER = ROOT / "results" / "crops-1"  # another number where the list changes what a name stands for


def listed_photographs() -> list[Path]:
    """Raises SystemExit where a package with photographs is not installed."""
    return [path for package in tomllib.loads(LIST.read_text())["packages"] for path in _find(package)]


def make_crops(photographs: Sequence[Path], folder: Path = FOLDER) -> dict[Path, str]:
    """PNG files of their crops, RGB, each with the name of its photograph; those that are there are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    crops = tomllib.loads(LIST.read_text())["crops"]
    made: dict[Path, str] = {}
    for photograph in tqdm(photographs, desc="cropping", unit="photograph", disable=None):
        paths = {name: folder / f"{photograph.stem}-{name}.png" for name in crops}
        if not all(path.exists() for path in paths.values()):
            with Image.open(photograph) as image:
                whole = image.convert("RGB")
            for name, path in paths.items():
                part = path.with_suffix(".part")
                _crop(whole, **crops[name]).save(part, "PNG")
                part.replace(path)  # what has the name is whole, whenever this is interrupted
        made |= dict.fromkeys(paths.values(), photograph.stem)
    return made


def resize_truck(width: int, height: int, quality: int) -> bytes:
    """The truck's photograph in another size, as a JPEG."""
    file = io.BytesIO()
    with Image.open(PHOTOGRAPHS / "truck.jpg") as photograph:
        photograph.resize((width, height)).save(file, "JPEG", quality=quality)
    return file.getvalue()


def enlarge_truck(folder: Path = FOLDER) -> Path:
    """Writes truck.jpg at 3.4 megapixels, a JPEG of 1.1 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "truck-enlarged.jpg"
    path.write_bytes(resize_truck(2250, 1500, quality=97))
    return path


def crops_named(names: Sequence[str] = FEW) -> list[Path]:
    """The crops of these names, of every photograph."""
    ends = tuple(f"-{name}" for name in names)
    return [path for path in make_crops(listed_photographs()) if path.stem.endswith(ends)]


def read_crops(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Each as uint8 RGB [H, W, 3]; a progress bar shows how many are done."""
    for path in tqdm(paths, unit="crop", disable=None):
        with Image.open(path) as picture:
            yield np.array(picture.convert("RGB"))


def _find(package: dict[str, Any]) -> list[Path]:
    spec = find_spec(package["package"])
    if spec is None or spec.origin is None:
        raise SystemExit(f"{LIST.name}: {package['package']} is not installed; `make test` installs it")
    folder = Path(spec.origin).parent / package["folder"]
    return [folder / name for name in package["files"]]


def _crop(image: Image.Image, box: tuple[float, float, float, float], mirrored: bool = False) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = np.rint(np.multiply(box, (width, height, width, height))).astype(int).tolist()
    part = image.crop((left, top, right, bottom))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else part
