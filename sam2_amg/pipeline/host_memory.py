"""How the process takes memory from the kernel, and gives it back."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

_MIB = 1 << 20
_MALLOPT = {  # malloc.h
    -8: 1,  # M_ARENA_MAX
    -3: 32 * _MIB,  # M_MMAP_THRESHOLD: the largest that glibc takes
    -1: 64 * _MIB,  # M_TRIM_THRESHOLD: free bytes at the heap's end that are kept
}


def use_huge_pages() -> None:
    """Has torch ask the kernel for huge pages under its host tensors of 2 MiB and more; to be called before the first,
    for torch looks once (THP_MEM_ALLOC_ENABLE, PyTorch's pull request 107697). NumPy asks for them by itself.

    A photograph of two megapixels lies on 1,600 pages of 4 KiB, which the kernel clears one by one, each time anew.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def use_one_heap() -> None:
    """Has all threads share one heap of glibc's allocator, which keeps what is freed until `give_back_memory` comes; to
    be called before there are threads. Another C library than glibc is left as it is.

    By default there are up to eight arenas a core, and each keeps what its threads have freed. Blocks of the size of
    photographs go back to the kernel one by one, and the next photograph waits until it has cleared them again.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(ctypes.CDLL(None), "mallopt"):
        for parameter, value in _MALLOPT.items():
            ctypes.CDLL(None).mallopt(parameter, value)


def give_back_memory(pause: float = 30.0) -> None:
    """Starts a thread that gives freed memory back to the kernel now, and every `pause` seconds.

    Tensors of many sizes leave gaps in glibc's heap, which it keeps: hundreds of MiB, and more by the hour. The
    thread ends with the process. Another C library than glibc is left as it is.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        threading.Thread(target=_repeat, args=(trim, pause), name="memory", daemon=True).start()


def _repeat(trim: Callable[[int], int], pause: float) -> None:
    while True:
        trim(0)
        time.sleep(pause)
