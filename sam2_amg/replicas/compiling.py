"""Of the replicas on a host, one compiles first; the others find what it compiled in the compilers' cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sam2_amg.compilation.jit import cache_errors, cache_folder
from sam2_amg.compilation.manifest import hash_code
from sam2_amg.config import ModelConfig
from sam2_amg.kernels.launch_tables import find_table


def _table_of(gpu: str, cache: Path | None) -> bytes:
    """The launch configurations that a GPU's kernels will have, where a table has them."""
    table = find_table(gpu, cache)
    with contextlib.suppress(OSError):  # whoever loads the model says so
        return table.read_bytes() if table else b""
    return b""


@contextmanager
def after_the_first(
    model: ModelConfig, parameters: object, cache: Path | None, report: Callable[[str], None]
) -> Iterator[None]:
    """Runs the block at once if the model is not compiled, or was on this host for the same `parameters`; else one
    process of the host after another. `cache` is the compilers' cache folder, None for their defaults. Raises
    StartupError if nothing can be written there."""
    if not model.mode.is_compiled or model.load_exported is not None:
        yield
        return
    device = torch.cuda.get_device_name() if model.device == "cuda" else "cpu"
    threads = torch.get_num_threads() if device == "cpu" else 0
    what = repr((model, parameters, device, threads, _table_of(device, cache), torch.__version__, hash_code()))
    name = f"sam2_amg-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    # the mark goes where what it stands for lies
    folder = cache_folder(cache)
    done = folder / f"{name}.compiled"
    if done.exists():
        yield
        return
    report("waiting for another replica to compile")
    with cache_errors(folder):
        file = (folder / f"{name}.lock").open("w")
    with file as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield
        with contextlib.suppress(OSError):
            done.touch()
