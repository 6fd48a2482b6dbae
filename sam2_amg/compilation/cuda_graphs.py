"""Warm-up of subgraphs, and on a GPU their capture as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sam2_amg.compilation.subgraphs import CHAINED, Subgraph, SubgraphShapes

_WARM_UPS = 3  # before a capture: libraries allocate their workspaces in the first calls


class StaticInputs:
    """A subgraph that only ever meets inputs laid out as its examples were, so that torch.compile has no reason to
    begin again. An image of one column, say, is resized to pixels whose first stride, of one image, is another."""

    def __init__(self, subgraph: Subgraph, examples: Sequence[Tensor]) -> None:
        self.subgraph = subgraph
        self.layouts = [(example.shape, example.stride()) for example in examples]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The subgraph's answer. Raises ValueError for other shapes."""
        return self.subgraph(*(_laid_out(x, *layout) for x, layout in zip(arguments, self.layouts, strict=True)))


def _laid_out(x: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    if x.shape != shape:
        raise ValueError(f"compiled for {tuple(shape)}, not for {tuple(x.shape)}")
    return x if x.stride() == strides else x.contiguous().as_strided(shape, strides)


class CudaGraph:
    """A subgraph captured once and replayed. Its answers lie in the same memory each time, until the next call.

    Graphs that share a `pool` of memory, and run one after another, share it; their outputs do not overlap. The
    `examples` are the graph's from now on: it reads its inputs there. What lies there already is not copied.
    """

    def __init__(self, subgraph: Subgraph, examples: Sequence[Tensor], pool: Any = None) -> None:
        self.subgraph = subgraph  # a graph knows where weights lie, and does not keep them there
        self.inputs = tuple(examples)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                subgraph(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.outputs = subgraph(*self.inputs)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Replays the subgraph on `arguments`, of the shapes that it was captured with."""
        for static, argument in zip(self.inputs, arguments, strict=True):
            if argument is not static:
                static.copy_(_laid_out(argument, static.shape, static.stride()))
        self.graph.replay()
        return self.outputs


class Capturer:
    """Warm-up and graph capture of subgraphs, one after the other, in the order of `SubgraphShapes.names`.

    On CUDA, a graph reads the outputs of the graph before it in place, without a copy.
    """

    def __init__(self, shapes: SubgraphShapes, device: torch.device) -> None:
        self.shapes = shapes
        self.device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._answers: tuple[Tensor, ...] = ()  # outputs of the graph before

    def examples(self, name: str) -> tuple[Tensor, ...]:
        """Inputs of a subgraph, zeros; the last of them are the answers of the subgraph before, where it is a graph."""
        examples = self.shapes.examples(name, self.device)
        if name not in CHAINED or not self._answers:
            return examples
        for answer in self._answers:
            answer.zero_()
        return (*examples[: -len(self._answers)], *self._answers)

    def add(self, subgraph: Subgraph, examples: tuple[Tensor, ...]) -> Subgraph:
        """The subgraph, ready to run, so that nothing is left to be compiled or loaded."""
        captured = warm_up_and_capture(subgraph, examples, self._pool)
        self._answers = captured.outputs if isinstance(captured, CudaGraph) else ()
        return captured


def warm_up_and_capture(subgraph: Subgraph, examples: Sequence[Tensor], pool: Any = None) -> Subgraph:
    """Runs a subgraph once, so that nothing is left to compile or load; on CUDA, captures it as a graph."""
    subgraph(*examples)
    return CudaGraph(subgraph, examples, pool) if examples[0].is_cuda else StaticInputs(subgraph, examples)
