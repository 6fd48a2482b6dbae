"""Generators whose timing the test decides; the real ones are behind every test of the server."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult
from sam2_amg.server.engine import Engine


class GatedGenerator(Generator):
    """Answers with the image's first pixel, once the gate is open; fails on a pixel of 13."""

    config = GeneratorConfig()

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = 0
        self.running = 0
        self.most_running = 0

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        self.started += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        assert self.gate.wait(30)
        self.running -= 1
        if image[0, 0, 0] == 13:
            raise ArithmeticError("thirteen")
        return [{"area": int(image[0, 0, 0])}]  # type: ignore[typeddict-item]


def image(value: int) -> NDArray[np.uint8]:
    return np.full((1, 1, 3), value, np.uint8)


def ask(engine: Engine, value: int) -> int:
    with engine.slot():
        return engine.generate(image(value))[0]["area"]


class TogetherGenerator(GatedGenerator):
    """Encodes up to three images together; features are what the image says, and 99 spoils all of them."""

    batch_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[list[int]] = []

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[int]:
        values = [int(image[0, 0, 0]) for image in images]
        self.encoded.append(values)
        if 99 in values:
            raise MemoryError("ninety-nine")
        return values

    def segment(
        self, image: NDArray[np.uint8], features: int | None = None, config: GeneratorConfig | None = None
    ) -> PendingResult:
        assert features in (None, image[0, 0, 0])  # nobody else's
        return super().segment(image, config=config)
