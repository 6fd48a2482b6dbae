"""How the process takes memory from the kernel, and gives it back."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable

_M_ARENA_MAX = -8  # malloc.h


def use_huge_pages() -> None:
    """Has torch ask the kernel for huge pages under its host tensors of 2 MiB and more; to be called before the first,
    for torch looks once (THP_MEM_ALLOC_ENABLE, PyTorch's pull request 107697). NumPy asks for them by itself.

    A photograph of two megapixels lies on 1,600 pages of 4 KiB, which the kernel clears one by one, each time anew.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def use_one_arena() -> None:
    """Has all threads share one arena of glibc's allocator; to be called before there are threads.

    By default there are up to eight arenas a core, and each keeps what its threads have freed. Another C library than
    glibc is left as it is.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


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
