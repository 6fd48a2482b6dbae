"""Subgraphs as ahead-of-time packages. A server that loads them compiles nothing.

A package is native code. Call `load_packages` only for a folder that you made yourself and that
`manifest.check_packages` has checked: hashes show that files match the manifest, not who made them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package
from torch._inductor.package import AOTICompiledModel

from sam2_amg.compilation import triton_cache
from sam2_amg.compilation.cuda_graphs import Capturer, StaticInputs
from sam2_amg.compilation.jit import compiler_errors
from sam2_amg.compilation.subgraphs import Subgraph, Subgraphs, SubgraphShapes
from sam2_amg.config import Mode
from sam2_amg.errors import StartupError
from sam2_amg.kernels import launch_tables
from sam2_amg.kernels.launch_configs import launch_configs, use_launch_configs

logger = logging.getLogger(__name__)
# Optimising the wrapper, which only calls kernels, takes seconds a package. CUDA graphs leave it out.
_INDUCTOR = {"aot_inductor.compile_wrapper_opt_level": "O0"}
_UNPACKING = "it is unpacked into TMPDIR, which needs free space and must allow execution; else make the packages again"


def package_name(subgraph: str) -> str:
    """The file name of a subgraph's package."""
    return f"{subgraph}.pt2"


def package_names(shapes: SubgraphShapes) -> list[str]:
    """The file names of all subgraphs' packages."""
    return [package_name(name) for name in shapes.names]


def file_names(shapes: SubgraphShapes, device: torch.device) -> list[str]:
    """All files besides the manifest: packages, and on a GPU this project's kernels and how they are launched."""
    return package_names(shapes) + [launch_tables.PACKED, triton_cache.NAME] * (device.type == "cuda")


def export_subgraphs(
    subgraphs: Subgraphs,
    shapes: SubgraphShapes,
    device: torch.device,
    folder: Path,
    report: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Compiles uncompiled `subgraphs` for their shapes into packages in `folder`. `report` receives progress messages.

    Call `compiler.use_working_compiler` first. Raises StartupError if compiling fails.
    """
    paths: list[Path] = []
    with compiler_errors(), environment_kept():
        for name, subgraph in subgraphs.by_name().items():
            report(f"compiling {name} for {device.type}, package {len(paths) + 1} of {len(package_names(shapes))}")
            paths.append(folder / package_name(name))
            _export(subgraph, shapes.examples(name, device), paths[-1])
    if device.type == "cuda":
        paths.append(folder / launch_tables.PACKED)
        launch_tables.write_table(paths[-1], torch.cuda.get_device_name(device), launch_configs(device))
    return paths


@contextmanager
def environment_kept() -> Iterator[None]:
    """Restores the environment variables afterwards, for subprocesses started later.

    torch's compiler sets TRITON_PTXAS_PATH to its own assembler. A server uses Triton's assembler, and would not find
    kernels compiled with another one in the cache.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _export(subgraph: Subgraph, examples: tuple[Tensor, ...], path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # from torch 2.11's own code
        assert isinstance(subgraph, nn.Module)  # uncompiled subgraphs are modules
        program = torch.export.export(subgraph, examples, strict=False)
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=_INDUCTOR)


def load_packages(
    folder: Path, shapes: SubgraphShapes, device: torch.device, report: Callable[[str], None] = logger.info
) -> Subgraphs:
    """The subgraphs of the packages in `folder`, ready to run; on a GPU captured as CUDA graphs.

    Raises StartupError if a package cannot be loaded.
    """
    if device.type == "cuda":
        use_launch_configs(launch_tables.read_table(folder / launch_tables.PACKED))
    capturer = Capturer(shapes, device)
    if device.type == "cuda" and (folder / triton_cache.NAME).is_file():  # missing while `export` compiles the kernels
        triton_cache.use_packed_kernels(folder)

    def load(name: str) -> Subgraph:
        report(f"loading {package_name(name)}")
        package = _open(folder / package_name(name), device)
        # a package assumes the strides of its export examples without checking them
        subgraph = StaticInputs(lambda *inputs: tuple(package(*inputs)), shapes.examples(name, device))
        return capturer.add(name, subgraph, capturer.examples(name))

    return Subgraphs.named({name: load(name) for name in shapes.names})


def from_packages(
    folder: Path, report: Callable[[str], None] = logger.info
) -> Callable[[SAM2Base, Mode, SubgraphShapes, torch.device], Subgraphs]:
    """The `make_subgraphs` of `modes.build.build_generator` that loads packages instead of compiling."""
    return lambda _model, _mode, shapes, device: load_packages(folder, shapes, device, report)


def _open(path: Path, device: torch.device) -> AOTICompiledModel:
    """Opens a package with torch's loader, without `aoti_load_package`.

    That function first checks the processor, which compiles programs for ten seconds. The manifest check covers it.
    Raises StartupError if the package cannot be loaded.
    """
    single_threaded = device.type == "cuda"  # the loader's locks cannot be captured in a CUDA graph
    try:
        return AOTICompiledModel(torch._C._aoti.AOTIModelPackageLoader(str(path), "model", single_threaded, 1, -1))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        help_ = "on Debian or Ubuntu: apt install libgomp1" if "libgomp" in reason else _UNPACKING
        raise StartupError(f"{path} cannot be loaded ({reason}); {help_}") from error
