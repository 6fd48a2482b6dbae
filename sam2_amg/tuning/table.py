"""`tune` from a device to its table."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from sam2_amg.errors import StartupError, os_errors
from sam2_amg.kernels.launch_configs import SAFE, shipped_configs
from sam2_amg.kernels.launch_tables import table_name, tables_folders, write_table
from sam2_amg.process.account import make_writable
from sam2_amg.process.signals import exit_on_signals
from sam2_amg.tuning.tune import tune


def _writing(path: Path) -> AbstractContextManager[None]:
    return os_errors(f"{path} cannot be written", "give --compile_cache another folder")


def make_table(name: str, folder: Path | None) -> Path:
    """Measures the GPU `name` and writes its table to `folder`, by default the one that servers look into.

    Raises StartupError.
    """
    device = torch.device(name)
    gpu = torch.cuda.get_device_name(device)
    path = tables_folders(folder)[0] / table_name(gpu)
    before = shipped_configs(device) or SAFE
    exit_on_signals()
    with _writing(path):
        make_writable(path.parent)  # before minutes of measuring
    try:
        chosen = tune(device, before)
    except torch.OutOfMemoryError as error:
        raise StartupError(f"{gpu} has too little free memory; stop what else uses it, and try again") from error
    except BrokenProcessPool as error:
        raise StartupError("a process that compiled kernels was ended; try again with more free memory") from error
    with _writing(path):
        write_table(path, gpu, replace(SAFE, **{one.config_name: one.config for one in chosen}))
    for one in chosen:
        config = ", ".join(f"{key} {value}" for key, value in one.config.items())
        print(f"{one.config_name:20} {one.before:8.3f} ms -> {one.milliseconds:8.3f} ms   {config}")
    print(f"Wrote {path}. It is used from the next start on.")
    return path
