"""Subgraphs as ahead-of-time packages: written once, loaded by any number of servers, which compile nothing.

A package is native code. `load_packages` is to be called for folders that `manifest.check_packages` has passed, and for
folders of one's own alone: a hash says that a file is the one that the manifest names, not who made the two.
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

logger = logging.getLogger(__name__)
_UNPACKING = "it is unpacked into TMPDIR, which needs room and must allow execution; or make the packages again"


def package_name(subgraph: str) -> str:
    """The file that a subgraph is packaged in."""
    return f"{subgraph}.pt2"


def package_names(shapes: SubgraphShapes) -> list[str]:
    """The files of all subgraphs that there are."""
    return [package_name(name) for name in shapes.names]


def file_names(shapes: SubgraphShapes, device: torch.device) -> list[str]:
    """All files beside the manifest: packages, and on a GPU our own kernels."""
    return package_names(shapes) + [triton_cache.NAME] * (device.type == "cuda")


def export_subgraphs(
    subgraphs: Subgraphs,
    shapes: SubgraphShapes,
    device: torch.device,
    folder: Path,
    report: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Compiles plain `subgraphs` for their shapes into packages in `folder`; `report` hears what is being done.

    To be called after `compiler.use_working_compiler`. Raises StartupError where they cannot be compiled.
    """
    paths: list[Path] = []
    with compiler_errors(), environment_kept():
        for name, subgraph in subgraphs.by_name().items():
            report(f"compiling {name} for {device.type}, package {len(paths) + 1} of {len(package_names(shapes))}")
            paths.append(folder / package_name(name))
            _export(subgraph, shapes.examples(name, device), paths[-1])
    return paths


@contextmanager
def environment_kept() -> Iterator[None]:
    """Puts the environment variables back as they were, for processes that are started after.

    torch's compiler sets TRITON_PTXAS_PATH to an assembler of its own. Kernels that Triton compiles with that one, a
    server would not find in their cache: it compiles nothing with torch, and uses Triton's own assembler.
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
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # torch 2.11 warns of itself
        assert isinstance(subgraph, nn.Module)  # plain subgraphs are
        program = torch.export.export(subgraph, examples, strict=False)
        aoti_compile_and_package(program, package_path=str(path))


def load_packages(
    folder: Path, shapes: SubgraphShapes, device: torch.device, report: Callable[[str], None] = logger.info
) -> Subgraphs:
    """The subgraphs of packages, ready to run; on CUDA captured in graphs.

    Raises StartupError where the system lacks what a package needs.
    """
    capturer = Capturer(shapes, device)
    if device.type == "cuda" and (folder / triton_cache.NAME).is_file():  # it is not while it is being made
        triton_cache.use_packed_kernels(folder)

    def load(name: str) -> Subgraph:
        report(f"loading {package_name(name)}")
        package = _open(folder / package_name(name), device)
        # it reads its inputs as those lay that it was exported with, without a look at how they lie
        subgraph = StaticInputs(lambda *inputs: tuple(package(*inputs)), shapes.examples(name, device))
        return capturer.add(subgraph, capturer.examples(name))

    return Subgraphs.named({name: load(name) for name in shapes.names})


def from_packages(
    folder: Path, report: Callable[[str], None] = logger.info
) -> Callable[[SAM2Base, Mode, SubgraphShapes, torch.device], Subgraphs]:
    """What `modes.build.build_generator` makes subgraphs with, where packages take the place of compiling."""
    return lambda _model, _mode, shapes, device: load_packages(folder, shapes, device, report)


def _open(path: Path, device: torch.device) -> AOTICompiledModel:
    """torch's loader of packages, without `aoti_load_package` around it: that one first finds out what processor this
    is by compiling programs for ten seconds, and warns of another; the manifest has said already that it is the same.
    """
    single_threaded = device.type == "cuda"  # its locks have no place in a graph
    try:
        return AOTICompiledModel(torch._C._aoti.AOTIModelPackageLoader(str(path), "model", single_threaded, 1, -1))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        help_ = "on Debian or Ubuntu: apt install libgomp1" if "libgomp" in reason else _UNPACKING
        raise StartupError(f"{path} cannot be loaded ({reason}); {help_}") from error
