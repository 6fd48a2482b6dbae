"""Bounded queue -> the workers that share the model -> an answer for each request."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.errors import RequestError, shutting_down
from sam2_amg.network.weights import Weights
from sam2_amg.pipeline.base import Generator, MaskRecord
from sam2_amg.server.failure import Failure
from sam2_amg.server.jobs import Job, JobQueue
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.watchdog import Watchdog
from sam2_amg.server.worker import Pace, Worker, for_caller, out_of_memory

logger = logging.getLogger(__name__)


class Engine:
    """Runs a generator for many callers at once, in the order in which they asked, in as many worker threads as the
    generator allows. Images that wait at the same time are encoded together, as many as the generator takes.

        with engine.slot(), decoders.decoded(data) as image:    # RequestError 503 if the queue is full
            records = engine.generate(image)   # waits; whatever the generator raises comes out here

    A slot is held from before decoding until the answer is made, so `queue_size` bounds the images in
    memory (and as many more as are encoded together, where requests ran out of time meanwhile).

    Without a generator it refuses, and says what `report` last said is being done, until `set_generator` brings one.
    After a failure of the device, a job that does not end or the death of a worker it refuses everything, and calls
    `on_failure`, once.
    """

    def __init__(
        self, generator: Generator | None, limits: Limits, on_failure: Callable[[Failure], None] | None = None
    ) -> None:
        self.limits = limits
        self.phase = "starting"
        self.failure: Failure | None = None
        self.is_stopping = False  # whether the server is to end; requests are still accepted
        self.weights: Weights | None = None  # which the generator has; None until they are known
        self._generator: Generator | None = None
        self._queue = JobQueue(limits.queue_size)
        self._pace = Pace()
        self._workers: list[Worker] = []
        self._watchdog = Watchdog(self._workers, self._pace, limits.stuck_timeout, self.fail)
        self._on_failure = on_failure
        self._failing = threading.Lock()
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
        worker = Worker(first, self._queue, lambda: self._generator, self._pace, self.fail)
        worker.start()
        worker.started.result()
        self._workers.append(worker)

    def set_generator(self, generator: Generator) -> None:
        """Starts to answer, with as many worker threads as the generator allows. To be called once."""
        while len(self._workers) < generator.workers:
            self.start_worker(lambda: None)
        self._generator = generator
        self._watchdog.start()

    @property
    def generator(self) -> Generator | None:
        """What makes the masks; None until `set_generator`."""
        return self._generator

    @property
    def is_ready(self) -> bool:
        """Whether requests are being answered: all workers run, and the engine is not closing."""
        return self._generator is not None and self.is_alive and not self.is_stopping

    @property
    def is_closing(self) -> bool:
        """Whether it accepts nothing more."""
        return self._queue.is_closing

    @property
    def is_alive(self) -> bool:
        """Whether requests are being answered, or will be: nothing has gone wrong."""
        if self.is_closing or self.failure is not None:
            return False
        return self._generator is None or self.live_workers == len(self._workers) > 0

    @property
    def live_workers(self) -> int:
        """How many worker threads run."""
        return sum(worker.is_alive() for worker in self._workers)

    @property
    def pace(self) -> Pace:
        """How long images take, and how they were worked on."""
        return self._pace

    @property
    def in_flight(self) -> int:
        """How many slots are in use."""
        return self._queue.in_flight

    @property
    def waiting(self) -> int:
        """How many images wait for a worker."""
        return self._queue.waiting

    def place_of(self, request_id: str) -> int | None:
        """How many images are before that of a request; None if it does not wait for a worker."""
        return self._queue.place_of(request_id)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of `queue_size` slots. Raises RequestError queue_full, starting, shutting_down or failed (503)."""
        self.check_room()
        if not self._queue.enter():
            raise self._queue_full() if not self.is_closing else self._ended()
        try:
            yield
        finally:
            self._queue.leave()

    def check_room(self) -> None:
        """Raises RequestError queue_full, starting, shutting_down or failed (503) if `slot` would."""
        if self.failure is not None or self.is_closing:
            raise self._ended()
        if self._generator is None:
            raise RequestError(503, "starting", f"The server is starting: {self.phase}.", retry_after=5)
        if self.in_flight >= self.limits.queue_size:
            raise self._queue_full()

    def _queue_full(self) -> RequestError:
        wait = max(1, math.ceil(self.in_flight * self._pace.per_image / max(1, len(self._workers))))
        message = f"All {self.limits.queue_size} slots (--queue_size) are in use; try again in {wait} s."
        return RequestError(503, "queue_full", message, retry_after=wait)

    def _ended(self) -> RequestError:
        return shutting_down() if self.failure is None else self.failure.refusal()

    def generate(
        self, image: NDArray[np.uint8], ticket: Ticket | None = None, config: GeneratorConfig | None = None
    ) -> list[MaskRecord]:
        """The masks of uint8 RGB [H, W, 3]. A worker goes on to the next image while this thread makes records.

        `config` has all of the generator's parameters for this image; None for those of the server.
        The ticket says until when the answer is of use, `request_timeout` from now without one. Raises what the
        generator raised, and RequestError: timeout (504), out_of_memory, cancelled, shutting_down or failed (503).
        """
        ticket = ticket or Ticket(time.monotonic() + self.limits.request_timeout)
        job = Job(image, ticket, config)
        ticket.enter("queued")
        if not self._queue.put(job):
            raise self._ended()
        try:
            pending = job.wait(self.limits.request_timeout)
        finally:
            self._queue.forget(job)
        ticket.enter("rendering")
        try:
            return pending()
        except MemoryError as error:
            raise out_of_memory() from error
        except Exception:
            raise
        except BaseException as error:
            raise for_caller(error) from error

    def fail(self, failure: Failure) -> None:
        """Refuses every request from now on, also those that wait. Only the first failure counts."""
        with self._failing:
            if self.failure is not None:
                return
            self.failure = failure
        logger.critical("%s This process ends with status %d.", failure.reason, failure.exit_status)
        self._watchdog.end()
        self._queue.abandon(failure.refusal())
        if self._on_failure is not None:
            self._on_failure(failure)

    def close(self, timeout: float | None = None) -> bool:
        """Accepts nothing more, waits until every slot is free again, and stops the workers; for `timeout` seconds,
        or `drain_timeout` without one. What waits then gets RequestError shutting_down.

        Answers whether every request had its answer in time.
        """
        timeout = self.limits.drain_timeout if timeout is None else timeout
        end = time.monotonic() + timeout
        answered = self._queue.close(timeout)
        self._watchdog.end()
        if not answered and self.failure is None:
            logger.warning("%d requests had no answer within %g s (--drain_timeout)", self.in_flight, timeout)
            self._queue.abandon(shutting_down())
        for worker in self._workers:
            worker.join(max(0.0, end - time.monotonic()))
        return answered
