"""Units on their way to a device: run once, and on a GPU captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sam2_amg.compilation.subgraphs import FED_BY_THE_ONE_BEFORE, Unit, UnitShapes

_WARM_UPS = 3  # before a capture: libraries allocate their workspaces in the first calls


class FixedInputs:
    """A unit that only ever meets inputs laid out as its examples were, so that torch.compile has no reason to begin
    again. An image of one column, say, is resized to pixels whose first stride, of one image, is another."""

    def __init__(self, unit: Unit, examples: Sequence[Tensor]) -> None:
        self.unit = unit
        self.layouts = [(example.shape, example.stride()) for example in examples]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The unit's answer. Raises ValueError for other shapes."""
        return self.unit(*(_laid_out(x, *layout) for x, layout in zip(arguments, self.layouts, strict=True)))


def _laid_out(x: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    if x.shape != shape:
        raise ValueError(f"compiled for {tuple(shape)}, not for {tuple(x.shape)}")
    return x if x.stride() == strides else x.contiguous().as_strided(shape, strides)


class CudaGraph:
    """A unit captured once and replayed. Its answers lie in the same memory each time, until the next call.

    Graphs that share a `pool` of memory, and run one after another, use it in turn; their answers stay apart. The
    `examples` are the graph's from now on: it reads its inputs there. What lies there already is not copied.
    """

    def __init__(self, unit: Unit, examples: Sequence[Tensor], pool: Any = None) -> None:
        self.unit = unit  # a graph knows where weights lie, and does not keep them there
        self.inputs = tuple(examples)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                unit(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.outputs = unit(*self.inputs)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Replays the unit on `arguments`, of the shapes that it was captured with."""
        for place, argument in zip(self.inputs, arguments, strict=True):
            if argument is not place:
                place.copy_(_laid_out(argument, place.shape, place.stride()))
        self.graph.replay()
        return self.outputs


class Settling:
    """Units on their way to a device, one after the other: each is run once, and on CUDA captured.

    There, a unit reads what the one before it answers where that lies, without a copy.
    """

    def __init__(self, shapes: UnitShapes, device: torch.device) -> None:
        self.shapes = shapes
        self.device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._answers: tuple[Tensor, ...] = ()  # of the graph before

    def examples(self, name: str) -> tuple[Tensor, ...]:
        """Inputs of a unit, zeros; the last of them are the answers of the unit before, where it is a graph."""
        examples = self.shapes.examples(name, self.device)
        if name not in FED_BY_THE_ONE_BEFORE or not self._answers:
            return examples
        for answer in self._answers:
            answer.zero_()
        return (*examples[: -len(self._answers)], *self._answers)

    def settle(self, unit: Unit, examples: tuple[Tensor, ...]) -> Unit:
        """The unit, ready to run, so that nothing is left to be compiled or loaded."""
        settled = settle(unit, examples, self._pool)
        self._answers = settled.outputs if isinstance(settled, CudaGraph) else ()
        return settled


def settle(unit: Unit, examples: Sequence[Tensor], pool: Any = None) -> Unit:
    """Runs a unit once, so that nothing is left to be compiled or loaded; on CUDA the answer replays it as a graph."""
    unit(*examples)
    return CudaGraph(unit, examples, pool) if examples[0].is_cuda else FixedInputs(unit, examples)
