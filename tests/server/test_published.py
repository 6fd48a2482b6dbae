"""The published commands, letter by letter: find, shuf, xargs with curl, and compare_rle_lists.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import CPU, ROOT, drawn_image
from local_server import running
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import DEMO_DIR
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator
from sam2_amg.server.engine import Engine
from sam2_amg.server.listen import bind
from sam2_amg.server.segmenting import local_desk
from sam2_amg.server.startup import make_front

PATHS = "find FOLDER -type f | shuf -n 3 > paths"
MASKS = "xargs -I {} curl -s -w \"\\n\" -X POST http://HOST:PORT/upload_rle -F 'image=@{}' < paths > LIST"
PICTURE = "curl -X POST http://HOST:PORT/upload -F 'image=@FOLDER/two words.jpg' --output out.png"
COMPARISON = "python compare_rle_lists.py A B"


@contextmanager
def serving(generator: Generator, decoders: DecoderPool) -> Iterator[str]:
    """A server of a generator: its HOST:PORT."""
    config = ServerConfig(ModelConfig(DEMO_DIR, "demo"), generator.config)
    engine = Engine(generator, Limits())
    sock = bind("127.0.0.1", 0)
    try:
        with running(make_front(config, local_desk(engine, decoders), sock), sock) as url:
            yield url.removeprefix("http://")
    finally:
        engine.close()


def shell(line: str, folder: Path) -> str:
    """What a line prints, in which `python` is the one that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        line, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def make_list(generator: Generator, decoders: DecoderPool, folder: Path, name: str) -> str:
    """Writes the list of a generator as published; the host and port of its server, which has ended."""
    with serving(generator, decoders) as address:
        shell(MASKS.replace("HOST:PORT", address).replace("LIST", name), folder)
        if name == "ao":
            shell(PICTURE.replace("HOST:PORT", address).replace("FOLDER", "images"), folder)
    return (folder / name).read_text()


def assert_they_agree(first: str, second: str, folder: Path) -> None:
    figures = shell(COMPARISON.replace("A B", f"{folder / first} {folder / second} --min_miou 0.999"), ROOT)
    assert "images                      3\n  with another mask count   0\n" in figures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below, and their paths in random order."""
    (tmp_path / "images" / "below").mkdir(parents=True)
    for seed, name in enumerate(("plain.png", "two words.jpg", "below/another.png")):
        Image.fromarray(drawn_image(60, 80 + seed, seed)).save(tmp_path / "images" / name)
    shell(PATHS.replace("FOLDER", "images"), tmp_path)
    assert len((tmp_path / "paths").read_text().splitlines()) == 3
    return tmp_path


@pytest.mark.parametrize("points", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_baseline_and_ao(folder: Path, demo_model: SAM2Base, points: int, decoders: DecoderPool) -> None:
    """ao as with `--batch_size 16`, which the published table has."""
    config = GeneratorConfig(points_per_side=points)
    baseline = build_generator(demo_model, Mode.BASELINE, config, CPU)
    ao = build_generator(demo_model, Mode.AO, config, CPU, batch_size=16)
    for name, generator in (("baseline", baseline), ("ao", ao)):
        lines = make_list(generator, decoders, folder, name).split("\n")
        assert lines[1::2] == ["", "", ""]  # what -w adds
        assert all(line.startswith('{"mask_0":{"size":[60,8') for line in lines[:6:2])
    assert_they_agree("baseline", "ao", folder)
    with Image.open(folder / "out.png") as drawn, Image.open(folder / "images" / "two words.jpg") as image:
        assert (drawn.format, drawn.size) == ("PNG", (81, 60))
        changed = np.array(drawn.convert("RGB")) != np.array(image.convert("RGB"))
    assert changed.any(axis=2).mean() > 0.05


def test_ao_and_fast(
    folder: Path, fast: Generator, demo_model: SAM2Base, few_points: GeneratorConfig, decoders: DecoderPool
) -> None:
    ao = build_generator(demo_model, Mode.AO, few_points, CPU)
    for name, generator in (("ao", ao), ("fast", fast)):
        assert make_list(generator, decoders, folder, name).count('{"mask_0"') == 3
    assert_they_agree("ao", "fast", folder)
