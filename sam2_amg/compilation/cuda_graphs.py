"""Warm-up of subgraphs, and on a GPU capture as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sam2_amg.compilation.subgraphs import Subgraph, SubgraphShapes, is_encoder, reads_in_place
from sam2_amg.pipeline.streams import capture_stream

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


@dataclass(frozen=True)
class GraphMemory:
    """What graphs share that run one after another; their outputs do not overlap.

    Products of one stream share a workspace. So a graph that is to run beside others needs another stream, too.
    """

    pool: Any = field(default_factory=torch.cuda.graph_pool_handle)
    stream: torch.cuda.Stream = field(default_factory=capture_stream)


class CudaGraph:
    """A subgraph captured once and replayed. Each call overwrites the outputs of the one before.

    The graph owns `examples` and reads its inputs from them; an argument that is one of them is not copied.
    """

    def __init__(self, subgraph: Subgraph, examples: Sequence[Tensor], memory: GraphMemory) -> None:
        self.subgraph = subgraph  # keeps the weights alive: a graph holds only their addresses
        self.inputs = tuple(examples)
        self.memory = memory
        memory.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(memory.stream):
            for _ in range(_WARM_UPS):
                subgraph(*self.inputs)
        torch.cuda.current_stream().wait_stream(memory.stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=memory.pool, stream=memory.stream):
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

    On a GPU, `attend` reads the outputs of `prepare` in place. Encoders may run beside the other graphs.
    """

    def __init__(self, shapes: SubgraphShapes, device: torch.device) -> None:
        self.shapes = shapes
        self.device = device
        self._of_encoders, self._of_others = (GraphMemory() if device.type == "cuda" else None for _ in range(2))
        self._answers: tuple[Tensor, ...] = ()  # outputs of the previous graph

    def examples(self, name: str) -> tuple[Tensor, ...]:
        """Example inputs of a subgraph, all zeros. On a GPU, the last ones of `attend` are the previous graph's
        outputs."""
        examples = self.shapes.examples(name, self.device)
        if not reads_in_place(name) or not self._answers:
            return examples
        for answer in self._answers:
            answer.zero_()
        return (*examples[: -len(self._answers)], *self._answers)

    def add(self, name: str, subgraph: Subgraph, examples: tuple[Tensor, ...]) -> Subgraph:
        """Warms up and captures the subgraph of this name; returns it ready to run."""
        memory = self._of_encoders if is_encoder(name) else self._of_others
        captured = warm_up_and_capture(subgraph, examples, memory)
        self._answers = captured.outputs if isinstance(captured, CudaGraph) else ()
        return captured


def warm_up_and_capture(subgraph: Subgraph, examples: Sequence[Tensor], memory: GraphMemory | None = None) -> Subgraph:
    """Runs a subgraph once, which compiles and loads what it needs; with `memory`, captures it as a CUDA graph."""
    subgraph(*examples)
    return StaticInputs(subgraph, examples) if memory is None else CudaGraph(subgraph, examples, memory)
