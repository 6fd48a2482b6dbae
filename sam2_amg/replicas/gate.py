"""Lets requests go on to replicas, as many at a time as these can work on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from sam2_amg.server.slots import Slots, Waiter
from sam2_amg.server.ticket import Ticket


@dataclass(frozen=True, eq=False)
class Turn(Waiter[None]):
    """A request that waits for its turn."""

    ticket: Ticket
    answer: Future[None] = field(default_factory=Future)


class Gate(Slots[Turn]):
    """Slots, and the line of those whose turn has not come. Safe to use from many threads."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._room = 0
        self._inside = 0

    @property
    def inside(self) -> int:
        """How many replicas work on."""
        return self._inside

    def set_room(self, room: int) -> None:
        """How many may go on at a time, from now on."""
        with self._changed:
            self._room = room
            self._admit()

    @contextmanager
    def passing(self, turn: Turn, request_timeout: float) -> Iterator[None]:
        """Waits for a turn that was `put` in line, and holds it until the end of the block. Raises as `Turn.wait`."""
        with self._changed:
            self._admit()
        try:
            turn.wait(request_timeout)
            try:
                yield
            finally:
                with self._changed:
                    self._inside -= 1
                    self._admit()
        finally:
            self.forget(turn)

    def _admit(self) -> None:
        while self._line and self._inside < self._room:
            turn = self._line.popleft()
            if turn.is_wanted and turn.resolve(None):
                self._inside += 1
