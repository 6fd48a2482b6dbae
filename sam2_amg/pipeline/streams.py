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


_STREAMS = 32  # that torch deals out in turn
_capture_streams: set[int] = set()  # their handles


def capture_stream() -> torch.cuda.Stream:
    """A stream to capture CUDA graphs in. A graph uses the workspace of this stream's products whenever it is replayed,
    so no thread gets the stream as its own afterwards."""
    stream = torch.cuda.Stream()
    _capture_streams.add(stream.cuda_stream)
    return stream


def _own_stream(device: torch.device) -> torch.cuda.Stream:
    for _ in range(_STREAMS):
        stream = torch.cuda.Stream(device)
        if stream.cuda_stream not in _capture_streams:
            break
    return stream


class PerThreadStream(threading.local):
    """One CUDA stream per thread, created on the thread's first use; none on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.stream = _own_stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.default_stream(device))  # where the model was loaded

    def __call__(self) -> AbstractContextManager:
        """A context that queues the device's work in this thread's stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
