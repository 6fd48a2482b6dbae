"""Of the replicas on a host, one compiles first; the others find what it compiled in the compilers' cache."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sam2_amg.config import ModelConfig
from sam2_amg.kernels.launch_tables import find_table
from sam2_amg.process.version import find_version


def _default_cache() -> Path:
    """Where TorchInductor keeps what it compiled, unless it is told."""
    default = f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", default))


def _table_of(gpu: str, cache: Path | None) -> bytes:
    """The launch configurations that a GPU's kernels will have, where a table has them."""
    table = find_table(gpu, cache)
    with contextlib.suppress(OSError):  # whoever loads the model says so
        return table.read_bytes() if table else b""
    return b""


@contextmanager
def after_the_first(model: ModelConfig, cache: Path | None, report: Callable[[str], None]) -> Iterator[None]:
    """Runs the block at once if the model is not compiled, or was on this host; else one process of the host after
    another. `cache` is the compilers' cache folder, None for their defaults."""
    if not model.mode.is_compiled or model.load_exported is not None:
        yield
        return
    device = torch.cuda.get_device_name() if model.device == "cuda" else "cpu"
    what = repr((model, device, _table_of(device, cache), torch.__version__, find_version()))
    name = f"sam2_amg-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    folder = cache or _default_cache()  # where the mark goes with what it stands for
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{name}.compiled"
    if done.exists():
        yield
        return
    report("waiting for another replica to compile")
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield
        with contextlib.suppress(OSError):
            done.touch()
