"""The units compiled for their fixed shapes, and on a GPU captured as CUDA graphs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException, UserError
from torch._dynamo.utils import counters
from torch._inductor.exc import CppCompileError

from sam2_amg.errors import StartupError
from sam2_amg.kernels.mask_stats import box_kernel, mask_stats_kernel
from sam2_amg.kernels.rle import boundaries_kernel
from sam2_amg.kernels.upscale import upscale_kernel
from sam2_amg.units import FED_BY_THE_ONE_BEFORE, Unit, Units, UnitShapes, map_units

logger = logging.getLogger(__name__)
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


def compile_units(
    units: Units, shapes: UnitShapes, device: torch.device, report: Callable[[str], None] = logger.info
) -> Units:
    """Compiles each unit for its shapes, runs it once, and on CUDA captures it. Takes a minute or two; `report` hears
    what is being done.

    Raises StartupError where it cannot be compiled, as without a C++ compiler.
    """

    def compile_one(name: str, unit: Unit) -> Unit:
        report(f"compiling {name} for {device.type}")
        examples = settling.examples(name)
        compiled = cast(Unit, torch.compile(unit, fullgraph=True, dynamic=False))
        return settling.settle(compiled, examples)

    settling = Settling(shapes, device)
    require_compiler(device)
    with compiler_errors():
        return map_units(compile_one, units)


def require_compiler(device: torch.device) -> None:
    """Raises StartupError where compiling for the CPU needs a compiler that is not there."""
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise StartupError("--fast compiles for the CPU, and there is no g++; install it, set CXX, or do without")


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turns what torch's compilers raise into StartupError."""
    try:
        yield
    except (TorchDynamoException, CppCompileError, UserError) as error:
        reason = " ".join(str(error).split("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
        raise StartupError(f"--fast cannot be compiled here ({reason}); do without it") from error


def settle(unit: Unit, examples: Sequence[Tensor], pool: Any = None) -> Unit:
    """Runs a unit once, so that nothing is left to be compiled or loaded; on CUDA the answer replays it as a graph."""
    unit(*examples)
    return CudaGraph(unit, examples, pool) if examples[0].is_cuda else FixedInputs(unit, examples)


def count_compilations() -> int:
    """What has been compiled in this process so far: graphs of torch.compile, and variants of our own kernels."""
    kernels = (mask_stats_kernel, box_kernel, boundaries_kernel, upscale_kernel)
    variants = sum(len(caches[0]) for kernel in kernels for caches in getattr(kernel, "device_caches", {}).values())
    return counters["stats"]["unique_graphs"] + variants
