"""Memory for decoded pixels that a GPU reads by itself, so that the host need not copy them once more."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

_MOST = 4  # photographs of a process at a time; where more wait, the GPU is busy, and another copy costs no time
_LARGEST = 32 << 20  # bytes of a photograph; torch keeps what was pinned, up to _MOST of each power of two

_free = deque(range(_MOST))  # a deque's methods take no lock, so that the garbage collector may call them at any time


def empty_pinned(size: int) -> NDArray[np.uint8]:
    """An array of `size` bytes, with anything in it: pinned for the first few in a process that uses CUDA.

    Raises RuntimeError if CUDA has no memory to pin.
    """
    if size > _LARGEST or not torch.cuda.is_initialized():
        return np.empty(size, np.uint8)
    try:
        place = _free.pop()
    except IndexError:
        return np.empty(size, np.uint8)
    try:
        array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    except BaseException:
        _free.append(place)
        raise
    weakref.finalize(array, _free.append, place).atexit = False  # when no view of it is left
    return array
