"""Bounded queue -> the workers that share the model -> a future for each request."""

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
    """Runs a generator for many callers at once, in the order in which they asked, in as many worker threads as the
    generator allows. Images that wait at the same time are encoded together, as many as the generator takes.

        with engine.slot(), decoders.decoded(data) as image:    # RequestError 503 if the queue is full
            records = engine.generate(image)   # waits; whatever the generator raises comes out here

    A slot is held from before decoding until the answer is made, so `queue_size` bounds the images in
    memory (and as many more as are encoded together, where requests ran out of time meanwhile).

    Without a generator it refuses, and says what `report` last said is being done, until `set_generator` brings one.
    """

    def __init__(self, generator: Generator | None, limits: Limits) -> None:
        self.limits = limits
        self.phase = "starting"
        self._generator: Generator | None = None
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # a job came, or the engine is closing
        self._in_flight = 0
        self._closing = False
        self._seconds_per_image = 1.0  # a moving average, for Retry-After
        self._workers: list[threading.Thread] = []
        if generator is not None:
            self.set_generator(generator)

    def report(self, phase: str) -> None:
        """Says what is being done before there is a generator."""
        logger.info("%s ...", phase)
        self.phase = phase

    def start_worker(self, first: Callable[[], None]) -> None:
        """Starts a worker with this call, and waits for it. Raises what it raises; the worker is gone then.

        A first image belongs here: CUDA's libraries have handles of their own for every thread.
        """
        started: Future[None] = Future()
        worker = threading.Thread(target=self._work, args=(first, started), name="generator", daemon=True)
        worker.start()
        started.result()
        self._workers.append(worker)

    def set_generator(self, generator: Generator) -> None:
        """Starts to answer, with as many worker threads as the generator allows."""
        while len(self._workers) < generator.workers:
            self.start_worker(lambda: None)
        with self._lock:
            self._generator = generator

    @property
    def generator(self) -> Generator | None:
        """What makes the masks; None until `set_generator`."""
        return self._generator

    @property
    def is_ready(self) -> bool:
        """Whether requests are being answered: all workers run, and the engine is not closing."""
        working = bool(self._workers) and all(worker.is_alive() for worker in self._workers)
        return self._generator is not None and working and not self._closing

    @property
    def is_closing(self) -> bool:
        """Whether it accepts nothing more."""
        return self._closing

    @property
    def is_alive(self) -> bool:
        """Whether requests are being answered, or will be: nothing has gone wrong."""
        return self.is_ready or (self._generator is None and not self._closing)

    @property
    def in_flight(self) -> int:
        """How many slots are in use."""
        return self._in_flight

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of `queue_size` slots. Raises RequestError queue_full or shutting_down (503)."""
        with self._lock:
            if self._closing:
                raise RequestError(503, "shutting_down", "The server is shutting down.", retry_after=5)
            if self._generator is None:
                raise RequestError(503, "starting", f"The server is starting: {self.phase}.", retry_after=5)
            if self._in_flight >= self.limits.queue_size:
                wait = max(1, math.ceil(self._in_flight * self._seconds_per_image / len(self._workers)))
                message = f"All {self.limits.queue_size} places (--queue_size) are taken; try again in {wait} s."
                raise RequestError(503, "queue_full", message, retry_after=wait)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()  # workers that wait for the last slot to be free

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]. Raises what the generator raised, or RequestError timeout (504).

        A worker goes on to the next image while this thread makes records of what was found.
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
            if job.answer.done():  # it came at this very moment, or the generator itself raised TimeoutError
                return job.answer.result()
            job.answer.cancel()  # if it is not begun, nobody need begin it
            with self._lock:
                if job in self._jobs:  # it holds an image
                    self._jobs.remove(job)
            message = f"No answer within {self.limits.request_timeout:g} s (--request_timeout)."
            raise RequestError(504, "timeout", message) from error

    def close(self) -> None:
        """Accepts nothing more, waits until every slot is free again, and stops the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self, first: Callable[[], None], started: Future[None]) -> None:
        try:
            first()
        except BaseException as error:  # whoever waits is to know
            started.set_exception(error)
            return
        started.set_result(None)
        while self._answer_next():
            pass

    def _answer_next(self) -> bool:
        """Answers one request, and those that wait with it; False where there will be no more of them.

        Images and features are let go of as soon as they are answered: what comes next may be long in coming.
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
        """The next jobs, in order of arrival: one, and what waits already; none where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or (self._closing and self._in_flight == 0))
            most = self._generator.batch_size if self._generator else 1
            return [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]

    def _encode(self, jobs: list[_Job]) -> Sequence[Any]:
        """What the generator knows of the images that were encoded together; nothing of one alone."""
        unencoded = [None] * len(jobs)
        if len(jobs) <= 1 or self._generator is None:
            return unencoded
        try:
            features = self._generator.encode([job.image for job in jobs])
            if len(features) != len(jobs):
                raise ValueError(f"features of {len(features)} images, not of {len(jobs)}")
            return features
        except BaseException:  # of one of them, perhaps: each gets its own answer
            logger.exception("encoding %d images together failed; going on with each by itself", len(jobs))
            return unencoded

    def _answer(self, job: _Job, features: Any) -> None:
        if not job.answer.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        try:
            assert self._generator is not None
            found = self._generator.segment(job.image, features)
        except BaseException as error:  # whatever it is, it belongs to this request, and the next one gets its turn
            logger.exception("generating masks failed")
            job.answer.set_exception(error)
            return
        job.answer.set_result(found)
