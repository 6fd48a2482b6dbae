"""Fixtures of all tests: the demo model, generators of compiled modes, a server."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported
    from triton_interpreter import speed_up_interpreter

    speed_up_interpreter()

from helpers import CPU, DEVICE, LENIENT, RunningServer, build_compiled, load_demo_model, run_export, start_server
from sam2.modeling.sam2_base import SAM2Base
from small_model import small_demo_model

from sam2_amg.compilation.aot import from_packages
from sam2_amg.config import GeneratorConfig, Limits, Mode
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator

# Fixtures that take long to make: the tests that have one of them run in one process, which makes it once.
SHARED = {"packages": "packages", "fast": "packages", "compiled": "packages", "server": "server"}


def pytest_itemcollected(item: pytest.Item) -> None:
    groups = {SHARED[name] for name in getattr(item, "fixturenames", ()) if name in SHARED}
    if groups and not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(min(groups)))
    if not torch.cuda.is_available() and item.get_closest_marker("gpu"):
        item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def demo_model() -> SAM2Base:
    return load_demo_model(CPU)


@pytest.fixture(scope="session")
def small_model() -> SAM2Base:
    """The demo model for a quarter of the pixels, which takes a quarter of the time and finds masks, too."""
    return small_demo_model(256)


@pytest.fixture(scope="session")
def demo_config() -> GeneratorConfig:
    """Thresholds that leave masks to compare, with few points and in every photograph; `LENIENT` has the same."""
    return GeneratorConfig(pred_iou_thresh=0.6, stability_score_thresh=0.9)


@pytest.fixture(scope="session")
def few_points(demo_config: GeneratorConfig) -> GeneratorConfig:
    """4 x 4 points, and 6 x 6 on a GPU, where they take no longer."""
    return replace(demo_config, points_per_side=6 if DEVICE.type == "cuda" else 4)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of mode fast for a CPU, written by the program. Takes over a minute."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("export") / "packages"
    known = {"TORCHINDUCTOR_VEC_ISA_OK": "1"}  # compiling programs to find out takes 18 seconds
    answer = run_export("--fast", "--device", "cpu", "--points_per_side", "3", "--output", str(folder), **known)
    assert answer.returncode == 0, answer.stderr[-3000:]
    decibels = re.search(r"mode ao on dog.jpg: predicted IoU (\d+) dB, logits (\d+) dB", answer.stdout)
    assert decibels is not None
    assert min(int(number) for number in decibels.groups()) >= 90
    return folder


@pytest.fixture(scope="session")
def fast(request: pytest.FixtureRequest, few_points: GeneratorConfig) -> Generator:
    """Mode fast: on a GPU compiled, on a CPU from packages, which compile the same network. Nobody else holds its
    model."""
    if DEVICE.type == "cuda":
        return build_compiled(Mode.FAST, few_points)
    packages = request.getfixturevalue("packages")
    return build_generator(load_demo_model(CPU), Mode.FAST, few_points, CPU, from_packages(packages))


@pytest.fixture(scope="session")
def furious(few_points: GeneratorConfig) -> Generator:
    """Mode furious, compiled; for tests marked gpu."""
    return build_compiled(Mode.FURIOUS, few_points)


@pytest.fixture(params=["fast", pytest.param("furious", marks=pytest.mark.gpu)])
def compiled(request: pytest.FixtureRequest) -> Generator:
    """Each mode that compiles."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    """The demo model in mode ao with few points, so that an answer takes half a second; it encodes up to three images
    together where they wait."""
    running = start_server("--points_per_side", "4", "--batch_size", "3", *LENIENT)
    yield running
    assert running.stop() == 0
    running.process.stdout.close()


@pytest.fixture(scope="session")
def decoders() -> Iterator[DecoderPool]:
    """One decoder."""
    with DecoderPool(Limits(decoders=1)) as pool:
        yield pool
