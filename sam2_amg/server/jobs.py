"""Images that wait for a worker, in the order of arrival, and the slots that bound them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import PendingResult
from sam2_amg.server.ticket import Ticket


def cancelled() -> RequestError:
    """What a request gets that nobody waits for any more."""
    return RequestError(503, "cancelled", "The request was cancelled.")


def timed_out(request_timeout: float) -> RequestError:
    """What a request gets whose time is over."""
    return RequestError(504, "timeout", f"No answer within {request_timeout:g} s (--request_timeout).")


@dataclass(frozen=True, eq=False)
class Job:
    """An image, and the answer that its caller waits for. The first answer stays; later ones are dropped.

    `config` has the generator's parameters for it; None for the generator's own.
    """

    image: NDArray[np.uint8]
    ticket: Ticket
    config: GeneratorConfig | None = None
    answer: Future[PendingResult] = field(default_factory=Future)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it: it is not answered, not cancelled and not out of time."""
        return not (self.answer.done() or self.ticket.cancelled.is_set() or self.ticket.remaining == 0)

    def resolve(self, found: PendingResult) -> None:
        """Answers with masks."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(found)

    def refuse(self, error: Exception) -> None:
        """Answers with an error."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_exception(error)

    def wait(self, request_timeout: float) -> PendingResult:
        """The answer. Raises what the job was refused with, and RequestError timeout (504) at the ticket's deadline.

        `request_timeout`, in seconds, is the limit that the error names.
        """
        with self.ticket.calling_on_cancel(lambda: self.refuse(cancelled())):
            wait([self.answer], min(self.ticket.remaining, threading.TIMEOUT_MAX))
        self.refuse(timed_out(request_timeout))
        return self.answer.result()


class JobQueue:
    """Slots for `size` requests, and the jobs of those that wait. Safe to use from many threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: deque[Job] = deque()
        self._open: set[Job] = set()  # these, and those that workers have
        self._in_flight = 0
        self._closing = False
        self._abandoned = False
        self._changed = threading.Condition()

    @property
    def in_flight(self) -> int:
        """How many slots are in use."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many jobs no worker has begun."""
        return len(self._waiting)

    @property
    def is_closing(self) -> bool:
        """Whether it gives out no more slots."""
        return self._closing

    def enter(self) -> bool:
        """Takes a slot; False if all are taken, or the queue is closing."""
        with self._changed:
            if self._closing or self._in_flight >= self.size:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        """Gives a slot back."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def put(self, job: Job) -> bool:
        """Adds a job at the end; False if nothing will be answered any more."""
        with self._changed:
            if self._abandoned:
                return False
            self._waiting.append(job)
            self._open.add(job)
            self._changed.notify_all()
            return True

    def forget(self, job: Job) -> None:
        """Drops a job whose caller has its answer: it holds an image."""
        with self._changed:
            self._open.discard(job)
            if job in self._waiting:
                self._waiting.remove(job)

    def take(self, most: Callable[[], int]) -> list[Job]:
        """Waits for jobs that somebody waits for, and takes up to as many as `most` then says.

        None if there will be no more of them.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_over)
                taken: list[Job] = []
                while self._waiting and len(taken) < most():
                    job = self._waiting.popleft()
                    if job.is_wanted:
                        taken.append(job)
                if taken or self._is_over:
                    return taken

    @property
    def _is_over(self) -> bool:
        return self._abandoned or (self._closing and self._in_flight == 0)

    def place_of(self, request_id: str) -> int | None:
        """How many jobs are before that of a request; None if it does not wait for a worker."""
        with self._changed:
            places = (i for i, job in enumerate(self._waiting) if job.ticket.request_id == request_id)
            return next(places, None)

    def close(self, timeout: float) -> bool:
        """Gives out no more slots, and waits up to `timeout` seconds until all are free; whether they are."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            end = time.monotonic() + timeout
            self._changed.wait_for(lambda: self._in_flight == 0 or self._abandoned, end - time.monotonic())
            return self._in_flight == 0

    def abandon(self, error: Exception) -> None:
        """Has nothing answered any more: every caller that waits gets `error` now, and workers end."""
        with self._changed:
            self._closing = self._abandoned = True
            jobs = list(self._open)
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            job.refuse(error)
