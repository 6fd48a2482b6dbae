"""Which images are measured: named, listed, or drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.__main__ import main
from bench.harness.images import FIRST_SEED, draw_scenes, find_images, scene
from sam2_amg.demo import PHOTOGRAPHS
from training import batches


def test_images_of_a_folder_and_of_a_list(tmp_path: Path) -> None:
    assert [path.name for path in find_images(PHOTOGRAPHS)] == ["dog.jpg", "groceries.jpg", "truck.jpg"]
    (tmp_path / "paths.txt").write_text(f"{PHOTOGRAPHS}/dog.jpg\n\n{tmp_path}/missing.jpg\n")
    with pytest.raises(SystemExit, match=r"missing.jpg is missing"):
        find_images(tmp_path / "paths.txt")
    with pytest.raises(SystemExit, match="no image in it"):
        find_images(tmp_path)


def test_drawn_scenes_are_reproducible_and_not_drawn_twice(tmp_path: Path) -> None:
    """A process of its own draws what is missing, the second."""
    second = scene(1)
    Image.new("RGB", (8, 8)).save(tmp_path / "scene-0000.jpg", "JPEG")
    before = (tmp_path / "scene-0000.jpg").stat().st_mtime_ns
    assert main(["--draw_only", "--scenes", "2", "--scenes_folder", str(tmp_path)]) == 0
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["scene-0000.jpg", "scene-0001.jpg"]
    assert paths[0].stat().st_mtime_ns == before
    pixels = np.array(Image.open(paths[1])).astype(int)
    assert np.abs(pixels - second).mean() < 5  # JPEG
    before = paths[1].stat().st_mtime_ns
    assert draw_scenes(2, tmp_path) == paths
    assert paths[1].stat().st_mtime_ns == before


def test_scenes_are_never_those_of_training_or_evaluation() -> None:
    assert FIRST_SEED > 10_000
    assert FIRST_SEED + 100_000 < batches.FIRST_SEED
