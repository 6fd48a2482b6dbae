"""Lets requests go on to replicas, to each as many as it works on at a time, and to the one with the least work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from sam2_amg.replicas.messages import ReplicaState
from sam2_amg.server.slots import Slots, Waiter
from sam2_amg.server.ticket import Ticket


@dataclass(eq=False)
class Place:
    """A replica, and what it has of this gate."""

    replica: ReplicaState
    is_open: bool = True  # whether it is given requests
    inside: int = 0  # requests
    latest: int = 0  # the greater, the later was it given a request

    @property
    def load(self) -> tuple[float, int]:
        """The less, the sooner it is given a request."""
        return self.inside / self.replica.at_once, self.latest


@dataclass(frozen=True, eq=False)
class Turn(Waiter[Place]):
    """A request that waits for its turn."""

    ticket: Ticket
    answer: Future[Place] = field(default_factory=Future)


class Gate(Slots[Turn]):
    """Slots, and the line of those whose turn has not come. Safe to use from many threads."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._places: dict[str, Place] = {}  # by ReplicaState.started
        self._inside = 0
        self._given = 0

    @property
    def inside(self) -> int:
        """How many requests replicas work on."""
        return self._inside

    def set_replicas(self, replicas: Iterable[ReplicaState]) -> None:
        """Which replicas take requests, from now on."""
        with self._changed:
            for place in self._places.values():
                place.is_open = False
            for replica in replicas:
                place = self._places.setdefault(replica.started, Place(replica))
                place.replica, place.is_open = replica, True
            # one that is given no more keeps its count until it has nothing left: it may be given requests again
            self._places = {key: place for key, place in self._places.items() if place.is_open or place.inside}
            self._admit()

    @contextmanager
    def passing(self, turn: Turn, request_timeout: float) -> Iterator[ReplicaState]:
        """Waits for a turn that was `put` in line, and holds it until the end of the block: the replica whose turn it
        is. Raises as `Turn.wait`."""
        with self._changed:
            self._admit()
        try:
            place = turn.wait(request_timeout)
            try:
                yield place.replica
            finally:
                with self._changed:
                    place.inside -= 1
                    self._inside -= 1
                    self._admit()
        finally:
            self.forget(turn)

    def _admit(self) -> None:
        while self._line:
            free = [each for each in self._places.values() if each.is_open and each.inside < each.replica.at_once]
            if not free:
                return
            place = min(free, key=lambda each: each.load)
            turn = self._line.popleft()
            if turn.is_wanted and turn.resolve(place):
                self._given += 1
                self._inside += 1
                place.inside += 1
                place.latest = self._given
