"""Fixtures of all tests: the demo model, generators of compiled modes, a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported

from helpers import CPU, DEVICE, LENIENT, RunningServer, build_compiled, start_server
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.pipeline.base import Generator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def demo_model() -> SAM2Base:
    kind = MODEL_TYPES["demo"]
    return load_model(DEMO_DIR / kind.file, kind, CPU)


@pytest.fixture(scope="session")
def demo_config() -> GeneratorConfig:
    """Thresholds that leave masks to compare, with few points and in every photograph; `LENIENT` has the same."""
    return GeneratorConfig(pred_iou_thresh=0.6, stability_score_thresh=0.9)


@pytest.fixture(scope="session")
def few_points(demo_config: GeneratorConfig) -> GeneratorConfig:
    """6 x 6 points."""
    return replace(demo_config, points_per_side=6)


@pytest.fixture(scope="session")
def fast(few_points: GeneratorConfig) -> Generator:
    """Mode fast, compiled, on whatever is there. Takes a minute; nobody else holds its model."""
    if DEVICE.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here")
    return build_compiled(Mode.FAST, few_points)


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
    running = start_server("--points_per_side", "8", "--batch_size", "3", *LENIENT)
    yield running
    assert running.stop() == 0
    running.process.stdout.close()
