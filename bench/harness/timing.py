"""Where the time of generate() goes: clocks around the pipeline's stages, or in other people's generators."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_amg.network.decoder import Attended, Kept, MaskDecoder
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.pipeline.generator import Stages


class StageClock:
    """Adds up milliseconds by stage: CUDA events on a GPU, the wall clock without one. Off until asked for.

    Stages may lie in one another: time counts towards the innermost alone, so that the sum is no more than the whole.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.on = False
        self.spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._running: list[str] = []  # the stages that have begun, innermost last
        self._since: Any = None  # when the innermost began, or went on

    def mark(self) -> Any:
        """Now: an event in the stream, or seconds."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _count(self) -> None:
        """Adds the time since the last change of stages to the one that ran."""
        now = self.mark()
        if self._running:
            self.spans[self._running[-1]].append((self._since, now))
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what happens inside towards a stage."""
        if not self.on:
            yield
            return
        self._count()
        self._running.append(name)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def read(self) -> dict[str, float]:
        """Milliseconds by stage since the last reading."""
        if self.cuda:
            torch.cuda.synchronize()
            totals = {name: sum(a.elapsed_time(b) for a, b in spans) for name, spans in self.spans.items()}
        else:
            totals = {name: sum(b - a for a, b in spans) * 1e3 for name, spans in self.spans.items()}
        self.spans.clear()
        return totals

    def around(self, name: str, function: Callable) -> Callable:
        """The same function, counted."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return timed


@dataclass(frozen=True)
class _TimedDecoder:
    clock: StageClock
    decoder: MaskDecoder

    @property
    def at_once(self) -> int | None:
        return self.decoder.at_once

    def prepare(self, features: ImageFeatures) -> Any:
        with self.clock.stage("decoder"):
            return self.decoder.prepare(features)

    def attend(self, prepared: Any, points: Tensor) -> Attended:
        with self.clock.stage("decoder"):
            return self.decoder.attend(prepared, points)

    def predict_masks(self, attended: Any, kept: Kept) -> Tensor:
        with self.clock.stage("decoder"):
            return self.decoder.predict_masks(attended, kept)


def time_stages(clock: StageClock, stages: Stages) -> Stages:
    """The same stages, counted by the names of the table."""
    return replace(
        stages,
        preprocess=clock.around("preprocess", stages.preprocess),
        encode=clock.around("encode", stages.encode),
        decoder=_TimedDecoder(clock, stages.decoder),
        mask_stats=clock.around("measure", stages.mask_stats),
        suppress=clock.around("nms", stages.suppress),
        run_boundaries=clock.around("rle", stages.run_boundaries),
    )


def time_methods(clock: StageClock, methods: Iterable[tuple[Any, str, str]]) -> None:
    """Counts methods, (object, method, stage), of generators that are not made of stages; the classes stay as they are.

    Raises AttributeError where an object has no such method.
    """
    for owner, method, stage in methods:
        setattr(owner, method, clock.around(stage, getattr(owner, method)))


def time_sam2_like(
    clock: StageClock,
    generator: Any,
    module: ModuleType,
    methods: Iterable[tuple[Any, str, str]],
    functions: Mapping[str, str],
) -> None:
    """Counts what sam2's generator and torchao's have in common, and beside it the methods and functions given."""
    predictor = generator.predictor
    common = (
        (predictor, "set_image", "preprocess"),  # but for what is next, it is that
        (predictor.model, "forward_image", "encode"),
        (generator, "_process_batch", "measure"),  # but for the decoder, which is among the methods given
    )
    time_methods(clock, (*common, *methods))
    time_functions(clock, generator, module, {"batched_nms": "nms", **functions})


def time_functions(clock: StageClock, generator: Any, module: ModuleType, functions: Mapping[str, str]) -> None:
    """Counts functions, {name: stage}, that `generator.generate` finds by name in its module.

    There is no object of ours to put a clock on, so they are replaced in the module, but only while a generate() is
    being clocked: nothing else in this process, and no generate() whose time goes into a table, sees it.
    """
    plain = {name: getattr(module, name) for name in functions}
    timed = {name: clock.around(stage, plain[name]) for name, stage in functions.items()}
    generate = generator.generate

    def clocked(image: NDArray[np.uint8]) -> Any:
        if not clock.on:
            return generate(image)
        try:
            vars(module).update(timed)
            return generate(image)
        finally:
            vars(module).update(plain)

    generator.generate = clocked
