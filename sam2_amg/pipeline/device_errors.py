"""Which errors are a lack of memory, and whether a device still works after an error."""

from __future__ import annotations

import torch

# The CUDA and CPU allocators, CUDA's libraries and Triton raise RuntimeErrors that differ in their words alone.
_LACK_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the host has too little memory. The device stays usable then."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _LACK_OF_MEMORY)


def require_device(device: torch.device) -> None:
    """Runs a tiny operation on the device and waits for it.

    An error such as a device-side assert or an illegal memory access makes a CUDA context useless: every later call
    raises it again, and this one, too.
    """
    torch.zeros(1, device=device).add_(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_cached_memory(device: torch.device) -> None:
    """Gives memory that torch's allocator holds and no tensor uses back to the GPU. A CPU has no such cache."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
