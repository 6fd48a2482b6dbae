"""From a checkpoint to the generator of a mode."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from sam2_amg.compilation.aot import file_names, from_packages
from sam2_amg.compilation.manifest import Build, check_packages
from sam2_amg.config import GeneratorConfig, ModelConfig
from sam2_amg.errors import os_errors
from sam2_amg.kernels.launch_tables import VARIABLE, use_table
from sam2_amg.modes.build import MakeSubgraphs, build_generator, compile_mode, static_shapes
from sam2_amg.network.checkpoints import find_checkpoint, image_size_of, load_model
from sam2_amg.network.model_types import find_model_type
from sam2_amg.network.weights import Weights, check_weights
from sam2_amg.pipeline.base import Generator
from sam2_amg.process.account import make_writable

T = TypeVar("T")


def run_in_background(task: Callable[[], T]) -> Future[T]:
    """Runs `task` in a daemon thread; the future's `result()` waits for it, and returns or raises what it did.

    For work that releases the GIL, such as hashing and reading large files.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(task())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def keep_compiled(folder: Path) -> None:
    """Sets `folder` as the cache of TorchInductor and Triton, for the next start, and as the place of launch tables.
    Raises StartupError."""
    os.environ[VARIABLE] = str(folder.resolve())
    with os_errors(f"--compile_cache {folder} cannot be used", "choose another"):
        for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            make_writable(folder / name)
            os.environ[variable] = str((folder / name).resolve())


def load_generator(
    config: ModelConfig,
    parameters: GeneratorConfig,
    report: Callable[[str], None],
    note: Callable[[Weights], None] = lambda _: None,
) -> Generator:
    """Loads the model; compiles it or loads packages if the mode is compiled. `note` is told its weights. Raises
    StartupError."""
    kind = find_model_type(config.model_type)
    device = torch.device(config.device)
    path = find_checkpoint(config.checkpoint_dir, kind)
    weights = run_in_background(partial(check_weights, path, kind))
    make_subgraphs: MakeSubgraphs = partial(compile_mode, report=report)
    if (folder := config.load_exported) is None:
        if config.mode.is_compiled and device.type == "cuda":
            use_table(device, report)
        report(f"loading {path.name}")
        model = load_model(path, kind, device)
    else:
        report(f"loading {path.name} and checking the packages")
        shapes = static_shapes(config.mode, image_size_of(kind), parameters, device, config.batch_size)
        build = Build(path, kind.name, config.mode, device, shapes)
        checked = run_in_background(partial(check_packages, folder, build, file_names(shapes, device)))
        model = load_model(path, kind, device)
        checked.result()
        make_subgraphs = from_packages(folder, report)
    note(weights.result())
    return build_generator(model, config.mode, parameters, device, make_subgraphs, config.batch_size)
