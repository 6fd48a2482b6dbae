"""A small model behind a server in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import CPU
from local_server import OWN, LocalServer, serving
from small_model import small_demo_model

from sam2_amg.config import Limits, Mode
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator


@pytest.fixture(scope="session")
def small_generator() -> Generator:
    return build_generator(small_demo_model(128), Mode.AO, OWN, CPU)


@pytest.fixture(scope="session")
def local(small_generator: Generator, decoders: DecoderPool) -> Iterator[LocalServer]:
    with serving(small_generator, decoders, Limits()) as server:
        yield server
