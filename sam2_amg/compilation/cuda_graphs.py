"""Warm-up of subgraphs, and on a GPU capture as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sam2_amg.compilation.subgraphs import CHAINED, Subgraph, SubgraphShapes

_WARM_UPS = 3  # calls before a capture, in which libraries allocate their workspaces


class StaticInputs:
    """A subgraph whose inputs always get the strides of its examples, so that torch.compile does not recompile.

    Strides can differ even for equal shapes: those of the batch dimension do for an image one pixel wide.
    """

    def __init__(self, subgraph: Subgraph, examples: Sequence[Tensor]) -> None:
        self.subgraph = subgraph
        self.layouts = [(example.shape, example.stride()) for example in examples]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Runs the subgraph. Raises ValueError for other shapes."""
        return self.subgraph(*(_laid_out(x, *layout) for x, layout in zip(arguments, self.layouts, strict=True)))


def _laid_out(x: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    if x.shape != shape:
        raise ValueError(f"compiled for {tuple(shape)}, not for {tuple(x.shape)}")
    return x if x.stride() == strides else x.contiguous().as_strided(shape, strides)


class CudaGraph:
    """A subgraph captured once and replayed. Each call overwrites the outputs of the one before.

    The graph owns `examples` and reads its inputs from them; an argument that is one of them is not copied. Graphs that
    share a memory `pool` must run one after another; their outputs do not overlap.
    """

    def __init__(self, subgraph: Subgraph, examples: Sequence[Tensor], pool: Any = None) -> None:
        self.subgraph = subgraph  # keeps the weights alive: a graph holds only their addresses
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
        """Replays the subgraph on `arguments`. Raises ValueError for shapes other than the captured ones."""
        for static, argument in zip(self.inputs, arguments, strict=True):
            if argument is not static:
                static.copy_(_laid_out(argument, static.shape, static.stride()))
        self.graph.replay()
        return self.outputs


class Capturer:
    """Warms up and captures subgraphs one after another, in the order of `SubgraphShapes.names`.

    On a GPU, a graph reads the outputs of the previous graph in place.
    """

    def __init__(self, shapes: SubgraphShapes, device: torch.device) -> None:
        self.shapes = shapes
        self.device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._answers: tuple[Tensor, ...] = ()  # outputs of the previous graph

    def examples(self, name: str) -> tuple[Tensor, ...]:
        """Example inputs of a subgraph, all zeros. On a GPU, the last ones of `prepare` and `attend` are the previous
        graph's outputs."""
        examples = self.shapes.examples(name, self.device)
        if name not in CHAINED or not self._answers:
            return examples
        for answer in self._answers:
            answer.zero_()
        return (*examples[: -len(self._answers)], *self._answers)

    def add(self, subgraph: Subgraph, examples: tuple[Tensor, ...]) -> Subgraph:
        """Warms up and captures a subgraph; returns it ready to run."""
        captured = warm_up_and_capture(subgraph, examples, self._pool)
        self._answers = captured.outputs if isinstance(captured, CudaGraph) else ()
        return captured


def warm_up_and_capture(subgraph: Subgraph, examples: Sequence[Tensor], pool: Any = None) -> Subgraph:
    """Runs a subgraph once, which compiles and loads everything it needs; on a GPU, captures it as a CUDA graph."""
    subgraph(*examples)
    return CudaGraph(subgraph, examples, pool) if examples[0].is_cuda else StaticInputs(subgraph, examples)
