"""Slots that bound the requests in the server, and the line of those that wait for something, in order of arrival."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError, wait
from copy import copy
from typing import Generic, TypeVar

from sam2_amg.errors import RequestError
from sam2_amg.server.ticket import Ticket

T = TypeVar("T")


def cancelled() -> RequestError:
    """What a request gets that nobody waits for any more."""
    return RequestError(503, "cancelled", "The request was cancelled.")


def timed_out(request_timeout: float) -> RequestError:
    """What a request gets whose time is over."""
    return RequestError(504, "timeout", f"No answer within {request_timeout:g} s (--request_timeout).")


class Waiter(Generic[T]):
    """A request in line, and what it waits for. The first answer stays; later ones are dropped."""

    ticket: Ticket
    answer: Future[T]

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for it: it is not answered, not cancelled and not out of time."""
        return not (self.answer.done() or self.ticket.cancelled.is_set() or self.ticket.remaining == 0)

    def resolve(self, found: T) -> bool:
        """Answers; False if it has an answer already."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(found)
            return True
        return False

    def refuse(self, error: Exception) -> None:
        """Answers with an error."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_exception(error)

    def wait(self, request_timeout: float) -> T:
        """The answer. Raises what it was refused with, and RequestError timeout (504) at the ticket's deadline.

        `request_timeout`, in seconds, is the limit that the error names.
        """
        with self.ticket.calling_on_cancel(lambda: self.refuse(cancelled())):
            wait([self.answer], min(self.ticket.remaining, threading.TIMEOUT_MAX))
        self.refuse(timed_out(request_timeout))
        error = self.answer.exception()
        if isinstance(error, RequestError):  # a copy: with this frame in it, `error` would keep all that is asked for
            raise copy(error)
        return self.answer.result()


W = TypeVar("W", bound=Waiter)


class Slots(Generic[W]):
    """Slots for `size` requests, and the line of those that wait. Safe to use from many threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._line: deque[W] = deque()
        self._open: set[W] = set()  # these, and those that are worked on
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
        """How many stand in line."""
        return len(self._line)

    @property
    def is_closing(self) -> bool:
        """Whether it gives out no more slots."""
        return self._closing

    def enter(self) -> bool:
        """Takes a slot; False if all are taken, or no more are given out."""
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

    def put(self, waiter: W, first: bool = False) -> bool:
        """Adds a request at the end of the line, or at its head; False if nothing will be answered any more."""
        with self._changed:
            if self._abandoned:
                return False
            if first:
                self._line.appendleft(waiter)
            else:
                self._line.append(waiter)
            self._open.add(waiter)
            self._changed.notify_all()
            return True

    def forget(self, waiter: W) -> None:
        """Drops a request that has its answer."""
        with self._changed:
            self._open.discard(waiter)
            if waiter in self._line:
                self._line.remove(waiter)

    def place_of(self, request_id: str) -> int | None:
        """How many are before a request; None if it does not stand in line."""
        with self._changed:
            places = (i for i, waiter in enumerate(self._line) if waiter.ticket.request_id == request_id)
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
        """Has nothing answered any more: every caller that waits gets `error` now."""
        with self._changed:
            self._closing = self._abandoned = True
            waiters = list(self._open)
            self._line.clear()
            self._changed.notify_all()
        for waiter in waiters:
            waiter.refuse(error)
