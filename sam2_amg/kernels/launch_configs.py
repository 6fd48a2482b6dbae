"""Launch configurations of the kernels by GPU: tile sizes, warps, stages, and programs a point.

What is measured ships; a GPU that was not measured gets the smallest tiles, which is slower than it need be, but runs
wherever there is room for the vectors of a point: see `SHARED_MEMORY`. Measure with `python -m bench.kernels`, and add
a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from sam2_amg.errors import StartupError

LaunchConfig = Mapping[str, int]  # constants of the kernel in capitals, and Triton's own num_warps and num_stages


@dataclass(frozen=True)
class LaunchConfigs:
    """One for each kernel and kind of product."""

    update_first: LaunchConfig  # kernels/image_attention.py, fp16x3; as the next two
    update_second: LaunchConfig
    read: LaunchConfig
    fp16_update_first: LaunchConfig  # the same, float16
    fp16_update_second: LaunchConfig
    fp16_read: LaunchConfig
    attention: LaunchConfig  # kernels/attention.py: images and large windows
    small_attention: LaunchConfig  # windows of no more tokens than its tile
    upscale: LaunchConfig  # kernels/upscale.py, fp16x3
    fp16_upscale: LaunchConfig


HOPPER = LaunchConfigs(
    update_first={"BLOCK": 64, "PARTS": 2, "num_warps": 4, "num_stages": 3},
    update_second={"BLOCK": 64, "PARTS": 2, "num_warps": 8, "num_stages": 1},
    read={"BLOCK": 32, "PARTS": 2, "num_warps": 4, "num_stages": 3},
    fp16_update_first={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    fp16_update_second={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 2},
    fp16_read={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    attention={"BLOCK": 64, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 64, "num_warps": 4, "num_stages": 2},
    fp16_upscale={"BLOCK": 128, "num_warps": 8, "num_stages": 2},
)
SAFE = LaunchConfigs(
    update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    read={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    fp16_update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    fp16_update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    fp16_read={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    attention={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    fp16_upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
)
# Bytes of shared memory that a program needs with SAFE, by fp16x3 or not. An A100 gives 163 KiB, an
# H100 and a B200 227, GPUs for graphics 99.
SHARED_MEMORY = {True: 148 * 1024, False: 80 * 1024}
# by compute capability: 9.0 was measured on an H200 and an H100, which have the same multiprocessors
_MEASURED = {(9, 0): HOPPER}


def require_shared_memory(available: int, gpu: str, fp16x3: bool) -> None:
    """Raises StartupError where a program of the GPU may have `available` bytes, and our kernels need more."""
    if available < SHARED_MEMORY[fp16x3]:
        need, have = SHARED_MEMORY[fp16x3] >> 10, available >> 10
        way_out = "give --fast --furious, or leave --fast out" if fp16x3 else "leave --fast --furious out"
        raise StartupError(f"{gpu} has {have} KiB of shared memory a program, and the kernels need {need}: {way_out}")


_chosen: ContextVar[LaunchConfigs | None] = ContextVar("launch_configs", default=None)


@contextmanager
def using_launch_configs(configs: LaunchConfigs) -> Iterator[None]:
    """Uses these instead, whatever the device: to measure and to test."""
    token = _chosen.set(configs)
    try:
        yield
    finally:
        _chosen.reset(token)


def launch_configs(device: torch.device) -> LaunchConfigs:
    """Those for a device; where kernels are interpreted, those of the GPU that was measured."""
    if (chosen := _chosen.get()) is not None:
        return chosen
    if device.type != "cuda":
        return HOPPER
    return _MEASURED.get(torch.cuda.get_device_capability(device), SAFE)
