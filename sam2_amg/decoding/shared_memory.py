"""Memory that a server and one of its decoders share, for as long as the decoder stands.

A new one for each photograph would cost 15 ms at 3.4 megapixels: the kernel clears pages one by one.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

import numpy as np
from numpy.typing import NDArray

_STANDING = 32 << 20  # bytes of pixels, and of a file, that stay in memory between two images; more is given back
_SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_memory(file_bytes: int, pixel_bytes: int) -> int:
    """The descriptor of memory with room for a file and for pixels. Its size is fixed: nobody can cut it off under a
    reader. Pages are taken when they are written to."""
    descriptor = os.memfd_create("decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _whole_pages(file_bytes) + _whole_pages(pixel_bytes))
    fcntl.fcntl(descriptor, *_SEALS)
    return descriptor


def _whole_pages(count: int) -> int:
    return -(-count // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedMemory:
    """Both regions of shared memory as arrays: `file`, uint8 [file_bytes at least], and `pixels`, uint8
    [pixel_bytes at least]."""

    def __init__(self, descriptor: int, file_bytes: int) -> None:
        size = os.fstat(descriptor).st_size
        self._start = _whole_pages(file_bytes)
        self._map = mmap.mmap(descriptor, size)
        whole: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self.file, self.pixels = whole[: self._start], whole[self._start :]

    def give_back(self, file_bytes: int, pixel_bytes: int) -> None:
        """Frees the pages of a file and of pixels beyond those that stay."""
        for start, used in ((0, file_bytes), (self._start, pixel_bytes)):
            if used > _STANDING:
                self._map.madvise(mmap.MADV_REMOVE, start + _STANDING, _whole_pages(used) - _STANDING)

    def close(self) -> None:
        """Frees all; a second time it does nothing. Memory that an array still shows is freed with the array."""
        self.file = self.pixels = np.empty(0, np.uint8)
        with contextlib.suppress(BufferError):
            self._map.close()
