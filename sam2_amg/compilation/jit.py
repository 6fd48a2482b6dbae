"""Compiles the subgraphs for their static shapes with torch.compile."""

from __future__ import annotations

import copyreg
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException, UserError
from torch._dynamo.utils import counters
from torch._inductor.exc import CppCompileError
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.compiler import config as compiler_config

from sam2_amg.compilation.compiler import use_working_compiler
from sam2_amg.compilation.cuda_graphs import Capturer
from sam2_amg.compilation.manifest import hash_code
from sam2_amg.compilation.subgraphs import Subgraph, Subgraphs, SubgraphShapes, map_subgraphs
from sam2_amg.errors import StartupError, os_errors
from sam2_amg.kernels.launch_configs import fingerprint, launch_configs
from sam2_amg.kernels.layer_norm import layer_norm_kernel
from sam2_amg.kernels.mask_stats import box_kernel, mask_stats_kernel
from sam2_amg.kernels.rle import boundaries_kernel
from sam2_amg.kernels.upscale import upscale_kernel
from sam2_amg.process.account import make_writable

logger = logging.getLogger(__name__)
_MOST_COMPILED = 256  # times that a module is compiled for the models that a process has loaded; torch's default is 8


def _memory_format(name: str) -> torch.memory_format:
    return cast(torch.memory_format, getattr(torch, name.removeprefix("torch.")))


# A key of torch's cache of compiled graphs is a hash of pickled tensors' memory formats, among others. pickle names the
# module that has a format, and takes the first one imported that has `torch`, which is not the same in all processes.
copyreg.pickle(torch.memory_format, lambda it: (_memory_format, (str(it),)))


def compile_subgraphs(
    subgraphs: Subgraphs, shapes: SubgraphShapes, device: torch.device, report: Callable[[str], None] = logger.info
) -> Subgraphs:
    """Compiles each subgraph for its shapes and runs it once; on a GPU, captures it as a CUDA graph.

    It takes a minute or two. `report` receives progress messages. Raises StartupError if compiling fails, for example
    without a C++ compiler.
    """
    cache_folder()

    def compile_one(name: str, subgraph: Subgraph) -> Subgraph:
        report(f"compiling {name} for {device.type}")
        examples = capturer.examples(name)
        compiled = cast(Subgraph, torch.compile(subgraph, fullgraph=True, dynamic=False))
        return capturer.add(name, compiled, examples)

    capturer = Capturer(shapes, device)
    if device.type == "cpu":  # a GPU needs no C++ compiler here
        use_working_compiler(report)
    # torch's cache of compiled graphs knows neither our kernels, which it does not find in their operations, nor how
    # they are launched, nor how many threads the code for a CPU has
    launches = fingerprint(launch_configs(device))
    tag = f"{compiler_config.cache_key_tag} code {hash_code()} launch configurations {launches} {_threads(device)}"
    with (
        compiler_errors(),
        compiler_config.patch(cache_key_tag=tag),  # type: ignore[attr-defined]
        dynamo_config.patch(recompile_limit=_MOST_COMPILED),
    ):
        return map_subgraphs(compile_one, subgraphs)


def _threads(device: torch.device) -> str:
    return f"threads {torch.get_num_threads()}" if device.type == "cpu" else ""


def cache_folder(named: Path | None = None) -> Path:
    """Where compilers keep what they make: the folder `named`, or torch's own. Raises StartupError if nothing can be
    written there."""
    folder = named or Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir())
    with cache_errors(folder):
        make_writable(folder)
    return folder


def cache_errors(folder: Path) -> AbstractContextManager[None]:
    """Turns OSError of what is written to the compilers' cache into StartupError."""
    problem = f"nothing can be written to the compilers' cache in {folder}"
    return os_errors(problem, "choose another folder with --compile_cache")


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turns exceptions of torch's compilers into StartupError."""
    try:
        yield
    except (TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, UserError) as error:
        reason = " ".join(str(error).split("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
        raise StartupError(f"--fast cannot be compiled on this machine ({reason}); leave it out") from error


def count_compilations() -> int:
    """The number of torch.compile graphs and Triton kernel variants compiled in this process so far."""
    kernels = (mask_stats_kernel, box_kernel, boundaries_kernel, upscale_kernel, layer_norm_kernel)
    variants = sum(len(caches[0]) for kernel in kernels for caches in getattr(kernel, "device_caches", {}).values())
    return counters["stats"]["unique_graphs"] + variants
