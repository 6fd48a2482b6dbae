"""A request's ticket: how long it may take, whether anybody still waits for it, and how far it has come."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Literal

State = Literal["received", "decoding", "queued", "segmenting", "rendering", "done", "cancelled"]
_FINAL = ("done", "cancelled")
TICKET = "sam2_amg.ticket"  # its key in a WSGI environment
_STAGES: dict[State, str] = {"decoding": "decode", "queued": "queue", "segmenting": "segment", "rendering": "answer"}


class Ticket:
    """What the parts of the server know of one request. Safe to use from many threads.

    `deadline` is in seconds of time.monotonic(), infinite if there is none; it counts from the request's first byte.
    `times` has the moment, in seconds of time.monotonic(), at which each state so far began.
    """

    def __init__(self, deadline: float = math.inf, request_id: str | None = None) -> None:
        """A ticket in the state `received`; without a `request_id` it gets one of its own."""
        self.deadline = deadline
        self.request_id = request_id or uuid.uuid4().hex
        self.state: State = "received"
        self.times: dict[State, float] = {"received": time.monotonic()}
        self.cancelled = threading.Event()
        self.measured: tuple[tuple[str, float], ...] = ()  # stages and seconds, where another process has worked
        self._lock = threading.Lock()
        self._on_cancel: list[Callable[[], object]] = []

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether it is done or cancelled."""
        return self.state in _FINAL

    def enter(self, state: State) -> bool:
        """Goes on to `state`. False, and no change, once the ticket is done or cancelled."""
        with self._lock:
            return self._enter(state)

    def _enter(self, state: State) -> bool:
        if self.is_over:
            return False
        self.times[state] = time.monotonic()  # before the state: others read both without the lock
        self.state = state
        return True

    def cancel(self) -> bool:
        """Says that nobody waits any more: whoever works for the request is told at once.

        False, and no change, if the ticket is done or cancelled already.
        """
        with self._lock:
            if not self._enter("cancelled"):
                return False
            self.cancelled.set()
            calls = list(self._on_cancel)
        for call in calls:
            call()
        return True

    @contextlib.contextmanager
    def calling_on_cancel(self, call: Callable[[], object]) -> Iterator[None]:
        """Has `cancel` make this call, in its own thread, while the context lasts; at once if it is cancelled."""
        with self._lock:
            self._on_cancel.append(call)
            is_late = self.cancelled.is_set()
        try:
            if is_late:
                call()
            yield
        finally:
            with self._lock:
                self._on_cancel.remove(call)


def stages_of(ticket: Ticket, first_byte: float) -> list[tuple[str, float]]:
    """The stages of a request and their seconds, in order. `first_byte` is the moment when it began to arrive.

    What another process has measured stands for what this one knows; the queue is what is left of the time.
    """
    stages = [("receive", ticket.times["received"] - first_byte)]
    times = list(ticket.times.items())
    if ticket.measured:
        seconds = dict(ticket.measured)
        rest = times[-1][1] - ticket.times["received"] - sum(seconds.values())
        seconds["queue"] = seconds.get("queue", 0.0) + max(0.0, rest)
        return stages + list(seconds.items())
    for (state, begun), (_, ended) in itertools.pairwise(times):
        if state in _STAGES:
            stages.append((_STAGES[state], ended - begun))
    return stages


class Tickets:
    """The tickets of requests in progress and of the latest that ended, by id. Safe to use from many threads.

    It keeps at most `most` tickets, and those that are over for `keep` seconds. Of too many, it drops the oldest that
    is over, or the oldest of all if none is.
    """

    def __init__(self, most: int = 10_000, keep: float = 600.0) -> None:
        self.most = most
        self.keep = keep
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()  # the oldest first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._tickets)

    def add(self, ticket: Ticket) -> bool:
        """Keeps a ticket. False, and no change, if a ticket in progress has the same id."""
        with self._lock:
            self._drop_old()
            known = self._tickets.get(ticket.request_id)
            if known is not None and not known.is_over:
                return False
            self._tickets.pop(ticket.request_id, None)
            self._tickets[ticket.request_id] = ticket
            if len(self._tickets) > self.most:
                over = (name for name, one in self._tickets.items() if one.is_over)
                del self._tickets[next(over, next(iter(self._tickets)))]
            return True

    def get(self, request_id: str) -> Ticket | None:
        """The ticket of this id, or None if there is none or it is forgotten."""
        with self._lock:
            self._drop_old()
            return self._tickets.get(request_id)

    def cancel(self, request_id: str) -> Ticket | None:
        """Cancels a request, and answers its ticket; None if there is none or it is forgotten.

        A ticket that is done stays so.
        """
        ticket = self.get(request_id)
        if ticket is not None:
            ticket.cancel()  # outside the lock: it makes calls
        return ticket

    def _drop_old(self) -> None:
        """Forgets tickets at the old end that have been over for too long. A ticket in progress keeps those after it,
        for as long as a request may take."""
        limit = time.monotonic() - self.keep
        while self._tickets:
            request_id, oldest = next(iter(self._tickets.items()))
            if not oldest.is_over or oldest.times[oldest.state] > limit:
                return
            del self._tickets[request_id]
