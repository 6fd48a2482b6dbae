"""Memory for decoded pixels that a GPU reads by itself, so that the host need not copy them once more."""

from __future__ import annotations

import logging
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)
_MOST = 4  # photographs of a process at a time; where more wait, the GPU is busy, and another copy costs no time
# Bytes of a photograph. torch keeps what was pinned, rounded up to powers of two: about 250 MiB in all, and more only
# while a copy is on its way.
_LARGEST = 32 << 20

_free = deque(range(_MOST))  # a deque's methods take no lock, so that the garbage collector may call them at any time
_pinned: set[int] = set()  # where the arrays begin


def empty_pinned(size: int) -> NDArray[np.uint8]:
    """An array of `size` bytes, with anything in it: pinned for the first few in a process that uses CUDA."""
    if not 0 < size <= _LARGEST or not torch.cuda.is_initialized():
        return np.empty(size, np.uint8)
    try:
        place = _free.pop()
    except IndexError:
        return np.empty(size, np.uint8)
    try:
        array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    except RuntimeError as error:  # the place is lost, so that this is tried and said _MOST times at most
        logger.warning("no memory could be pinned, so that photographs are copied once more: %s", error)
        return np.empty(size, np.uint8)
    _pinned.add(start := _start_of(array))
    weakref.finalize(array, _give_back, place, start).atexit = False  # when no view of it is left
    return array


def begins_pinned(array: NDArray[np.uint8]) -> bool:
    """Whether this is what lies at the beginning of an array of `empty_pinned`, without gaps. torch knows a copy from
    there, but not from further on, and does not give the memory to others before the copy is done."""
    return array.flags.c_contiguous and array.flags.writeable and _start_of(array) in _pinned


def _start_of(array: NDArray[np.uint8]) -> int:
    return int(array.__array_interface__["data"][0])


def _give_back(place: int, start: int) -> None:
    _pinned.discard(start)
    _free.append(place)
