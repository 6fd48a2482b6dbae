"""Threads that segment images side by side: on a GPU each has a stream of its own, and they take turns in the network.

What follows the network waits for the device several times an image, and takes little of it. Meanwhile another thread's
image has the network, so that the device always has work.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import torch


class Turn:
    """A context that one thread is in at a time, for tensors that lie where all threads have them.

    On a GPU, what is asked for inside begins when everything that was asked for inside before has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._left: torch.cuda.Event | None = None  # when the device is through with the turn before

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._left is not None:
            self._left.wait()

    def __exit__(self, *_: object) -> None:
        try:
            if self.device.type == "cuda":
                self._left = torch.cuda.Event()
                self._left.record()
        finally:
            self._lock.release()


class OwnStream(threading.local):
    """Every thread's own stream of a CUDA device, made when the thread first asks; nothing on another device."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.default_stream(device))  # where the model was loaded

    def __call__(self) -> AbstractContextManager:
        """A context in which the device is given work in this stream."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
