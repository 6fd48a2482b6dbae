"""How the process takes memory from the kernel; to be called at its start, before torch takes any."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h


def use_huge_pages() -> None:
    """Has torch ask the kernel for huge pages under its host tensors of 2 MiB and more; to be called before the first,
    for torch looks once (THP_MEM_ALLOC_ENABLE, PyTorch's pull request 107697). NumPy asks for them by itself.

    A photograph of two megapixels lies on 1,600 pages of 4 KiB, which the kernel clears one by one, each time anew.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def use_one_arena() -> None:
    """Has all threads share one arena of glibc's allocator; to be called before there are threads.

    By default there are up to eight arenas a core. Each keeps what its threads have freed, so that a server with forty
    request threads grows for hours. Another C library than glibc is left as it is.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
