"""How our kernels are launched on which GPU: tiles, warps, and programs a point.

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

Launch = Mapping[str, int]  # constants of the kernel in capitals, and Triton's own num_warps and num_stages


@dataclass(frozen=True)
class Launches:
    """One for each kernel."""

    update_first: Launch  # kernels/image_attention.py, split products; as the next two
    update_second: Launch
    read: Launch
    half_update_first: Launch  # the same with products of float16
    half_update_second: Launch
    half_read: Launch
    attention: Launch  # kernels/attention.py: images and large windows
    small_attention: Launch  # windows of no more tokens than its tile
    upscale: Launch  # kernels/upscale.py, split products
    half_upscale: Launch


HOPPER = Launches(
    update_first={"BLOCK": 64, "PARTS": 2, "num_warps": 4, "num_stages": 3},
    update_second={"BLOCK": 64, "PARTS": 2, "num_warps": 8, "num_stages": 1},
    read={"BLOCK": 32, "PARTS": 2, "num_warps": 4, "num_stages": 3},
    half_update_first={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    half_update_second={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 2},
    half_read={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    attention={"BLOCK": 64, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 64, "num_warps": 4, "num_stages": 2},
    half_upscale={"BLOCK": 128, "num_warps": 8, "num_stages": 2},
)
SAFE = Launches(
    update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    read={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    half_update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    half_update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    half_read={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    attention={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    half_upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
)
# Bytes that a program needs with these, of products that are split and of those of float16. An A100 gives 163 KiB, an
# H100 and a B200 227, GPUs for graphics 99.
SHARED_MEMORY = {True: 148 * 1024, False: 80 * 1024}
# by compute capability: 9.0 was measured on an H200 and an H100, which have the same multiprocessors
_MEASURED = {(9, 0): HOPPER}


def require_shared_memory(available: int, gpu: str, split: bool) -> None:
    """Raises StartupError where a program of the GPU may have `available` bytes, and our kernels need more."""
    if available < SHARED_MEMORY[split]:
        need, have = SHARED_MEMORY[split] >> 10, available >> 10
        way_out = "give --fast --furious, or leave --fast out" if split else "leave --fast --furious out"
        raise StartupError(f"{gpu} has {have} KiB of shared memory a program, and the kernels need {need}: {way_out}")


_chosen: ContextVar[Launches | None] = ContextVar("launches", default=None)


@contextmanager
def launching(launches: Launches) -> Iterator[None]:
    """Launches by these instead, whatever the device: to measure and to test."""
    token = _chosen.set(launches)
    try:
        yield
    finally:
        _chosen.reset(token)


def launches(device: torch.device) -> Launches:
    """Those for a device; where kernels are interpreted, those of the GPU that was measured."""
    if (chosen := _chosen.get()) is not None:
        return chosen
    if device.type != "cuda":
        return HOPPER
    return _MEASURED.get(torch.cuda.get_device_capability(device), SAFE)
