"""Concurrent threads on a GPU: each has its own CUDA stream, and a lock guards each part of the network.

The host waits for the device several times per image: for predicted IoUs in the middle of the decoder, and in the
stages after it. Meanwhile another thread's image runs in the network, so the device stays busy.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import torch


class StreamOrderedLock:
    """A lock for tensors that all threads share. It orders both host threads and CUDA streams.

    One thread holds it at a time. On a GPU, work queued under the lock starts after all work queued under it earlier.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._released: torch.cuda.Event | None = None  # recorded at the last release

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._released is not None:
            self._released.wait()

    def __exit__(self, *_: object) -> None:
        try:
            if self.device.type == "cuda":
                self._released = torch.cuda.Event()
                self._released.record()
        finally:
            self._lock.release()


class PerThreadStream(threading.local):
    """One CUDA stream per thread, created on the thread's first use; none on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.default_stream(device))  # where the model was loaded

    def __call__(self) -> AbstractContextManager:
        """A context that queues the device's work in this thread's stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
