"""A bounded queue of requests, worker threads that share the model, and a future per request."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Job:
    image: NDArray[np.uint8]
    answer: Future[PendingResult] = field(default_factory=Future)


class Engine:
    """Runs a generator for concurrent callers in first-come, first-served order.

    It starts `generator.workers` threads. Up to `generator.batch_size` waiting images are encoded together.

        with engine.slot():                    # RequestError 503 if the queue is full
            image = decode_image(...)
            records = engine.generate(image)   # blocks; raises what the generator raises

    A slot is held from before decoding until the response is made, so `queue_size` bounds the images in memory. An
    image whose request timed out during encoding comes on top.

    Before `set_generator`, requests are refused with the phase that `report` last set.
    """

    def __init__(self, generator: Generator | None, limits: Limits) -> None:
        self.limits = limits
        self.phase = "starting"
        self._generator: Generator | None = None
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # a job arrived, a slot was released, or the engine closes
        self._in_flight = 0
        self._closing = False
        self._seconds_per_image = 1.0  # a moving average, for Retry-After
        self._workers: list[threading.Thread] = []
        if generator is not None:
            self.set_generator(generator)

    def report(self, phase: str) -> None:
        """Sets and logs the start-up phase, which /readyz shows."""
        logger.info("%s ...", phase)
        self.phase = phase

    def start_worker(self, first: Callable[[], None]) -> None:
        """Starts a worker that calls `first`, and waits for that call. If it raises, re-raises it and ends the worker.

        `first` should run an image, because CUDA libraries create handles per thread.
        """
        started: Future[None] = Future()
        worker = threading.Thread(target=self._work, args=(first, started), name="generator", daemon=True)
        worker.start()
        started.result()
        self._workers.append(worker)

    def set_generator(self, generator: Generator) -> None:
        """Starts to accept requests, after starting the remaining workers of `generator.workers`."""
        while len(self._workers) < generator.workers:
            self.start_worker(lambda: None)
        with self._lock:
            self._generator = generator

    @property
    def generator(self) -> Generator | None:
        """The generator that makes the masks; None until `set_generator`."""
        return self._generator

    @property
    def is_ready(self) -> bool:
        """Whether requests are accepted: a generator is set, all workers run, and the engine is not closing."""
        working = bool(self._workers) and all(worker.is_alive() for worker in self._workers)
        return self._generator is not None and working and not self._closing

    @property
    def is_closing(self) -> bool:
        """Whether the engine is shutting down and refuses new requests."""
        return self._closing

    @property
    def is_alive(self) -> bool:
        """Whether the engine is ready or still starting."""
        return self.is_ready or (self._generator is None and not self._closing)

    @property
    def in_flight(self) -> int:
        """The number of slots in use."""
        return self._in_flight

    def check_room(self) -> None:
        """Raises RequestError starting, queue_full or shutting_down (503) if `slot` would."""
        if self._closing:
            raise RequestError(503, "shutting_down", "The server is shutting down.", retry_after=5)
        if self._generator is None:
            raise RequestError(503, "starting", f"The server is starting: {self.phase}.", retry_after=5)
        if self._in_flight >= self.limits.queue_size:
            wait = max(1, math.ceil(self._in_flight * self._seconds_per_image / len(self._workers)))
            message = f"All {self.limits.queue_size} slots (--queue_size) are in use; try again in {wait} s."
            raise RequestError(503, "queue_full", message, retry_after=wait)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of `queue_size` slots. Raises RequestError queue_full, starting or shutting_down (503)."""
        with self._lock:
            self.check_room()
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()  # when closing, workers wait for the last slot

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]. Raises what the generator raised, or RequestError timeout (504).

        This thread converts masks to records while the worker segments the next image.
        """
        return self._segment(image)()

    def _segment(self, image: NDArray[np.uint8]) -> PendingResult:
        job = _Job(image)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        try:
            return job.answer.result(self.limits.request_timeout)
        except FutureTimeout as error:
            if job.answer.done():  # it finished after the timeout, or the generator itself raised TimeoutError
                return job.answer.result()
            job.answer.cancel()  # if no worker has started it
            with self._lock:
                if job in self._jobs:  # frees its image
                    self._jobs.remove(job)
            message = f"No answer within {self.limits.request_timeout:g} s (--request_timeout); try again later."
            raise RequestError(504, "timeout", message) from error

    def close(self) -> None:
        """Refuses new requests, waits until every slot is released, and stops the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self, first: Callable[[], None], started: Future[None]) -> None:
        try:
            first()
        except BaseException as error:  # `start_worker` raises it
            started.set_exception(error)
            return
        started.set_result(None)
        while self._answer_next():
            pass

    def _answer_next(self) -> bool:
        """Serves the next request and those encoded with it; returns False once the engine is closed.

        Images and features are released after each request, because the wait for the next one may be long.
        """
        jobs = self._next()
        start, count = time.monotonic(), len(jobs)
        features = list(self._encode(jobs))
        while jobs:
            self._answer(jobs.pop(0), features.pop(0))
        if count:
            seconds = (time.monotonic() - start) / count
            self._seconds_per_image = 0.8 * self._seconds_per_image + 0.2 * seconds
        return count > 0

    def _next(self) -> list[_Job]:
        """Waits for a job; returns it and up to `batch_size` - 1 others that wait, or [] if the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or (self._closing and self._in_flight == 0))
            most = self._generator.batch_size if self._generator else 1
            return [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]

    def _encode(self, jobs: list[_Job]) -> Sequence[Any]:
        """The features of each image if there are several; else None, and `segment` encodes the image."""
        unencoded = [None] * len(jobs)
        if len(jobs) <= 1 or self._generator is None:
            return unencoded
        try:
            features = self._generator.encode([job.image for job in jobs])
            if len(features) != len(jobs):
                raise ValueError(f"features of {len(features)} images, not of {len(jobs)}")
            return features
        except BaseException:  # perhaps only one image is at fault
            logger.exception("encoding %d images together failed; encoding each one separately", len(jobs))
            return unencoded

    def _answer(self, job: _Job, features: Any) -> None:
        if not job.answer.set_running_or_notify_cancel():
            return  # the request timed out
        try:
            assert self._generator is not None
            found = self._generator.segment(job.image, features)
        except BaseException as error:  # only this request fails; the worker continues with the next
            logger.exception("generating masks failed")
            job.answer.set_exception(error)
            return
        job.answer.set_result(found)
