"""A thread that has the generator segment images, and tells each caller what became of theirs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from sam2_amg.errors import RequestError, first_line
from sam2_amg.pipeline.base import Generator, PendingResult
from sam2_amg.pipeline.device_errors import is_out_of_memory
from sam2_amg.server.failure import DEVICE_FAILED, WORKER_DIED, Failure
from sam2_amg.server.jobs import Job, JobQueue

logger = logging.getLogger(__name__)


class GeneratorExitedError(Exception):
    """The generator raised SystemExit, KeyboardInterrupt or the like, which would end the thread of whoever asked."""


def for_caller(error: BaseException) -> Exception:
    """`error` as something that ends a request and no thread."""
    if isinstance(error, Exception):
        return error
    wrapped = GeneratorExitedError(f"the generator raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def out_of_memory() -> RequestError:
    """What a request gets that does not fit into memory, at a second try either."""
    message = "The device has too little memory for this image now; try again, or send a smaller image."
    return RequestError(503, "out_of_memory", message, retry_after=5)


def work_of(job: Job, generator: Generator) -> float:
    """How many times as many prompts as the server's own parameters a job may take; at least 1."""
    return 1.0 if job.config is None else max(1.0, job.config.prompts / generator.config.prompts)


@dataclass
class Pace:
    """How long images take, in seconds."""

    per_image: float = 1.0  # a moving average, for Retry-After
    slowest_step: float = 0.0  # images encoded together, or one segmented
    latest_batch: int = 0  # images encoded together
    retries: int = 0  # images tried again with less memory

    def note_step(self, seconds: float) -> None:
        """Counts a step that ended."""
        self.slowest_step = max(self.slowest_step, seconds)

    def note_images(self, seconds: float, count: int) -> None:
        """Counts images that were answered, one after another."""
        self.latest_batch = count
        self.per_image = 0.8 * self.per_image + 0.2 * seconds / count


class Worker(threading.Thread):
    """Answers jobs in the order of arrival, those that wait together encoded together, until there are no more.

    What a generator raises belongs to one request, and the next one gets its turn, unless the device is useless.
    """

    def __init__(
        self,
        first: Callable[[], None],
        queue: JobQueue,
        generator: Callable[[], Generator | None],
        pace: Pace,
        fail: Callable[[Failure], None],
    ) -> None:
        """`first` is called in the thread, before any job; `started` says how it ended."""
        super().__init__(name="generator", daemon=True)
        self.started: Future[None] = Future()
        self.step_began: float | None = None  # time.monotonic() of what the generator does now
        self.step_work = 1.0  # how much that is, in images of the server's own parameters
        self._first = first
        self._queue = queue
        self._generator = generator
        self._pace = pace
        self._fail = fail

    def run(self) -> None:
        """The thread."""
        try:
            self._first()
        except BaseException as error:  # whoever waits is to know
            self.started.set_exception(error)
            return
        self.started.set_result(None)
        try:
            while self._answer_next():
                pass
        except BaseException as error:
            logger.exception("a worker thread died")
            reason = f"A thread that makes masks ended ({type(error).__name__}); the server's log says more."
            self._fail(Failure(WORKER_DIED, reason))

    def _answer_next(self) -> bool:
        """Answers one request, and those that wait with it; False if there will be no more of them.

        Images and features are let go of as soon as they are answered: what comes next may be long in coming.
        """
        jobs = self._queue.take(self._batch_size)
        if not jobs:
            return False
        generator = self._generator()
        assert generator is not None  # without one nobody has a slot
        start, count = time.monotonic(), len(jobs)
        features = list(self._encode(generator, jobs))
        while jobs:
            self._answer(generator, jobs.pop(0), features.pop(0))
        self._pace.note_images(time.monotonic() - start, count)
        return True

    def _batch_size(self) -> int:
        generator = self._generator()
        return generator.batch_size if generator else 1

    def _encode(self, generator: Generator, jobs: list[Job]) -> Sequence[Any]:
        """What the generator knows of the images that were encoded together; nothing of one alone."""
        unencoded = [None] * len(jobs)
        if len(jobs) <= 1:
            return unencoded
        try:
            features = self._step(partial(generator.encode, [job.image for job in jobs]))
            if len(features) != len(jobs):
                raise ValueError(f"features of {len(features)} images, not of {len(jobs)}")
            return features
        except BaseException as error:  # of one of them, perhaps: each gets its own answer
            logger.exception("encoding %d images together failed; going on with each by itself", len(jobs))
            self._look_at_device(generator, error)
            return unencoded

    def _answer(self, generator: Generator, job: Job, features: Any) -> None:
        """Segments an image that somebody waits for. After a lack of memory it tries once more, with less."""
        if self._try(generator, job, partial(generator.segment, job.image, features, job.config)):
            return
        self._pace.retries += 1
        # what was raised is gone by now, and with it the frames that held tensors
        if not self._try(generator, job, partial(generator.segment_with_less_memory, job.image, job.config)):
            job.refuse(out_of_memory())

    def _try(self, generator: Generator, job: Job, segment: Callable[[], PendingResult]) -> bool:
        """Answers the job unless nobody waits for it. False, and no answer, if memory ran out."""
        if not job.is_wanted:
            return True  # its caller knows
        job.ticket.enter("segmenting")
        try:
            job.resolve(self._step(segment, work_of(job, generator)))
        except BaseException as error:  # whatever it is, it belongs to this request
            if is_out_of_memory(error):
                logger.warning("an image ran out of memory", exc_info=True)
                return False
            logger.exception("generating masks failed")
            self._look_at_device(generator, error)
            job.refuse(for_caller(error))
        return True

    def _step(self, action: Callable[[], Any], work: float = 1.0) -> Any:
        """Runs what may take long, or never end, with the clock that tells."""
        self.step_work = work
        self.step_began = start = time.monotonic()
        try:
            return action()
        finally:
            self._pace.note_step((time.monotonic() - start) / work)
            self.step_began = None

    def _look_at_device(self, generator: Generator, error: BaseException) -> None:
        """Gives the process up if an error has made the device useless to it."""
        if is_out_of_memory(error):
            return
        try:
            self._step(generator.require_device)
        except BaseException as found:
            if not is_out_of_memory(found):
                logger.exception("the device does not work any more")
                self._fail(Failure(DEVICE_FAILED, f"The device does not work any more ({first_line(found)})."))
