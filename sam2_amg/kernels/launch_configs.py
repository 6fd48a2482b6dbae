"""Launch configurations of the kernels by GPU: tile sizes, warps, stages, and programs per point.

Measured GPUs have tuned configurations. For others `sam2-amg tune` writes a table (`launch_tables.py`), which
`use_launch_configs` puts into use. Without one they get the smallest tiles, which are slower but run on any GPU with
enough shared memory (`SHARED_MEMORY`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass

import torch

from sam2_amg.errors import StartupError

LaunchConfig = Mapping[str, int]  # the kernel's constants in capitals, and Triton's num_warps and num_stages


@dataclass(frozen=True)
class LaunchConfigs:
    """A configuration for each kernel and product type."""

    update_first: LaunchConfig  # kernels/image_attention.py, fp16x3, like the next two
    update_second: LaunchConfig
    read: LaunchConfig
    fp16_update_first: LaunchConfig  # the three, float16
    fp16_update_second: LaunchConfig
    fp16_read: LaunchConfig
    position_scores: LaunchConfig  # kernels/position_scores.py
    attention: LaunchConfig  # kernels/attention.py: images and large windows
    small_attention: LaunchConfig  # windows with at most as many tokens as its tile
    upscale: LaunchConfig  # kernels/upscale.py, fp16x3
    fp16_upscale: LaunchConfig


HOPPER = LaunchConfigs(
    update_first={"BLOCK": 64, "PARTS": 2, "num_warps": 4, "num_stages": 3},
    update_second={"BLOCK": 64, "PARTS": 2, "num_warps": 4, "num_stages": 2},
    read={"BLOCK": 32, "PARTS": 4, "num_warps": 4, "num_stages": 2},
    position_scores={"BLOCK": 128, "POINTS": 8, "num_warps": 4, "num_stages": 1},
    fp16_update_first={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    fp16_update_second={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 2},
    fp16_read={"BLOCK": 64, "PARTS": 1, "num_warps": 4, "num_stages": 3},
    attention={"BLOCK": 64, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 64, "num_warps": 4, "num_stages": 3},
    fp16_upscale={"BLOCK": 128, "num_warps": 4, "num_stages": 1},
)
SAFE = LaunchConfigs(
    update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    read={"BLOCK": 16, "PARTS": 4, "num_warps": 4, "num_stages": 1},
    position_scores={"BLOCK": 16, "POINTS": 8, "num_warps": 4, "num_stages": 1},
    fp16_update_first={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    fp16_update_second={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    fp16_read={"BLOCK": 16, "PARTS": 2, "num_warps": 4, "num_stages": 1},
    attention={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    small_attention={"BLOCK": 16, "num_warps": 2, "num_stages": 1},
    upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
    fp16_upscale={"BLOCK": 32, "num_warps": 4, "num_stages": 1},
)
# Bytes of shared memory that a program needs with SAFE, by `fp16x3`. An A100 has 163 KiB per program, an H100 and a
# B200 have 227 KiB, graphics GPUs 99 KiB.
SHARED_MEMORY = {True: 148 * 1024, False: 80 * 1024}
# by compute capability: 9.0 is measured on an H200 and an H100, which have the same multiprocessors
_MEASURED = {(9, 0): HOPPER}


def require_shared_memory(available: int, gpu: str, fp16x3: bool) -> None:
    """Raises StartupError if the kernels need more than the `available` bytes of shared memory per program."""
    if available < SHARED_MEMORY[fp16x3]:
        need, have = SHARED_MEMORY[fp16x3] >> 10, available >> 10
        way_out = "give --fast --furious, or leave --fast out" if fp16x3 else "leave --fast --furious out"
        raise StartupError(f"{gpu} has {have} KiB of shared memory per program, but the kernels need {need}: {way_out}")


_tuned: LaunchConfigs | None = None  # of this process, on a GPU
_chosen: ContextVar[LaunchConfigs | None] = ContextVar("launch_configs", default=None)


@contextmanager
def using_launch_configs(configs: LaunchConfigs) -> Iterator[None]:
    """A context that uses `configs` on any device, for measurements and tests."""
    token = _chosen.set(configs)
    try:
        yield
    finally:
        _chosen.reset(token)


def launch_configs(device: torch.device) -> LaunchConfigs:
    """The configurations for a device. Interpreted kernels get HOPPER's."""
    if (chosen := _chosen.get()) is not None:
        return chosen
    if device.type != "cuda":
        return HOPPER
    return _tuned or shipped_configs(device) or SAFE


def shipped_configs(device: torch.device) -> LaunchConfigs | None:
    """The configurations that come with this package for a GPU; None for one that is not measured."""
    return _MEASURED.get(torch.cuda.get_device_capability(device))


def fingerprint(configs: LaunchConfigs) -> str:
    """The same few letters for the same configurations, for the names of what is compiled with them."""
    return hashlib.sha256(json.dumps(asdict(configs), sort_keys=True).encode()).hexdigest()[:16]


def use_launch_configs(configs: LaunchConfigs) -> None:
    """Has this process use `configs` on its GPU from now on. Kernels that are compiled already keep theirs."""
    global _tuned
    _tuned = configs
