"""Threads that segment images side by side: on a GPU each has a stream of its own, and the network is behind a lock.

What follows the network waits for the device several times an image, and takes little of it. Meanwhile another thread's
image has the network, so that the device always has work.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import torch


class StreamOrderedLock:
    """A lock for tensors that all threads share, on the host and in the order of CUDA streams.

    One thread holds it at a time. On a GPU, work queued under the lock starts when all work queued under it before has
    finished.
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
    """A CUDA stream a thread, made when the thread first asks; no stream on another device."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.default_stream(device))  # where the model was loaded

    def __call__(self) -> AbstractContextManager:
        """A context in which the device is given work in this stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
