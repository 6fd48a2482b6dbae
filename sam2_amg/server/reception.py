"""What stands before those that make masks: slots, and what is answered while there is no room or nobody works."""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.core import Metric

from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.errors import RequestError, shutting_down
from sam2_amg.network.weights import Weights
from sam2_amg.server.failure import Failure
from sam2_amg.server.slots import Slots

logger = logging.getLogger(__name__)


class Reception(ABC):
    """Bounds the requests in the server to `queue_size`.

        with reception.slot():          # RequestError 503 if there is none
            ...

    A slot is held from before decoding until the answer is made. Before anybody makes masks it refuses, and says what
    `report` last said is being done. After `fail` it refuses everything, and `on_failure` has been called, once.
    """

    def __init__(self, slots: Slots[Any], limits: Limits, on_failure: Callable[[Failure], None] | None) -> None:
        self.limits = limits
        self.phase = "starting"
        self.failure: Failure | None = None
        self.is_stopping = False  # whether the server is to end; requests are still accepted
        self.weights: Weights | None = None  # which the generator has; None until they are known
        self._slots = slots
        self._on_failure = on_failure
        self._failing = threading.Lock()

    def report(self, phase: str) -> None:
        """Says what is being done before masks can be made."""
        logger.info("%s ...", phase)
        self.phase = phase

    @property
    @abstractmethod
    def own(self) -> GeneratorConfig | None:
        """The parameters of the generator, where a request gives none; None until somebody makes masks."""

    @property
    @abstractmethod
    def at_once(self) -> int:
        """How many images those that make masks work on at a time."""

    @property
    @abstractmethod
    def per_image(self) -> float:
        """Seconds from one answer to the next, while there is work."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether requests are being answered, or will be: nothing has gone wrong."""

    @property
    def is_ready(self) -> bool:
        """Whether requests are being answered, and the server is not to end."""
        return self.own is not None and self.is_alive and not self.is_stopping

    @property
    def is_closing(self) -> bool:
        """Whether it accepts nothing more."""
        return self._slots.is_closing

    @property
    def in_flight(self) -> int:
        """How many slots are in use."""
        return self._slots.in_flight

    @property
    def waiting(self) -> int:
        """How many images nobody works on."""
        return self._slots.waiting

    def place_of(self, request_id: str) -> int | None:
        """How many images are before that of a request; None if it does not wait."""
        return self._slots.place_of(request_id)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds one of `queue_size` slots. Raises RequestError queue_full, starting, shutting_down or failed (503)."""
        self.check_room()
        if not self._slots.enter():
            raise self._queue_full() if not self.is_closing else self.ended()
        try:
            yield
        finally:
            self._slots.leave()

    def check_room(self) -> None:
        """Raises RequestError queue_full, starting, shutting_down or failed (503) if `slot` would."""
        if self.failure is not None or self.is_closing:
            raise self.ended()
        if self.own is None:
            raise RequestError(503, "starting", f"The server is starting: {self.phase}.", retry_after=5)
        if self.in_flight >= self._slots.size:
            raise self._queue_full()

    def _queue_full(self) -> RequestError:
        wait = max(1, math.ceil(self.in_flight * self.per_image))
        message = f"All {self._slots.size} slots (--queue_size) are in use; try again in {wait} s."
        return RequestError(503, "queue_full", message, retry_after=wait)

    def ended(self) -> RequestError:
        """What is answered once nothing is accepted any more."""
        return shutting_down() if self.failure is None else self.failure.refusal()

    def fail(self, failure: Failure) -> None:
        """Refuses every request from now on, also those that wait. Only the first failure counts."""
        with self._failing:
            if self.failure is not None:
                return
            self.failure = failure
        logger.critical("%s This process ends with status %d.", failure.reason, failure.exit_status)
        self._stop_watching()
        self._slots.abandon(failure.refusal())
        if self._on_failure is not None:
            self._on_failure(failure)

    def close(self, timeout: float | None = None) -> bool:
        """Accepts nothing more, and waits until every slot is free again; for `timeout` seconds, or `drain_timeout`
        without one. What waits then gets RequestError shutting_down.

        Answers whether every request had its answer in time.
        """
        answered = self._slots.close(self.limits.drain_timeout if timeout is None else timeout)
        self._stop_watching()
        if not answered and self.failure is None:
            logger.warning(
                "%d requests had no answer within %g s (--drain_timeout)", self.in_flight, self.limits.drain_timeout
            )
            self._slots.abandon(shutting_down())
        return answered

    @abstractmethod
    def measures(self) -> Iterator[Metric]:
        """What GET /metrics shows of those that make masks."""

    def describe(self) -> dict[str, Any]:
        """What GET /info shows of them besides."""
        return {}

    @abstractmethod
    def _stop_watching(self) -> None:
        """Looks no more at those that make masks: they end as they should."""
