"""Where the time of generate() goes: clocks around the pipeline's stages, or around a model's modules."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sam2_amg.decoder import Attended, Kept, MaskDecoder
from sam2_amg.encoder import ImageFeatures
from sam2_amg.pipeline import Stages


class StageClock:
    """Adds up milliseconds by stage: CUDA events on a GPU, the wall clock without one. Off until asked for."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.on = False
        self.spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def mark(self) -> Any:
        """Now: an event in the stream, or seconds."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what happens inside towards a stage."""
        if not self.on:
            yield
            return
        begin = self.mark()
        yield
        self.spans[name].append((begin, self.mark()))

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

        def timed(*arguments: Any) -> Any:
            with self.stage(name):
                return function(*arguments)

        return timed


@dataclass(frozen=True)
class _TimedDecoder:
    clock: StageClock
    decoder: MaskDecoder

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
        measure=clock.around("measure", stages.measure),
        suppress=clock.around("nms", stages.suppress),
        encode_rle=clock.around("rle", stages.encode_rle),
    )


def time_modules(clock: StageClock, image_encoder: nn.Module, mask_decoder: nn.Module) -> None:
    """Counts a sam2 model's own modules, for generators that are not made of stages."""
    for name, module in (("encode", image_encoder), ("decoder", mask_decoder)):
        begun: list[Any] = []

        def before(*_: object, begun: list = begun) -> None:
            begun.append(clock.mark())

        def after(*_: object, name: str = name, begun: list = begun) -> None:
            if clock.on:
                clock.spans[name].append((begun.pop(), clock.mark()))
            begun.clear()

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
