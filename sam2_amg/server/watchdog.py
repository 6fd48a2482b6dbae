"""Notices that a worker hangs or is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sam2_amg.server.failure import JOB_STUCK, WORKER_DIED, Failure
from sam2_amg.server.worker import Pace, Worker

_LOOKS = 10  # within a limit
_LONGEST_PAUSE = 1.0  # seconds between two looks
_TIMES_SLOWEST = 10  # no step is stuck before it takes as many times the slowest so far


class Watchdog(threading.Thread):
    """Looks at the workers every second, and reports the first that is stuck or dead."""

    def __init__(
        self, workers: Sequence[Worker], pace: Pace, stuck_timeout: float, fail: Callable[[Failure], None]
    ) -> None:
        """`stuck_timeout`, in seconds, counts from the begin of what a worker does (--stuck_timeout).

        An image whose request asks for more prompts than the server's own parameters has as many times as long.
        """
        super().__init__(name="watchdog", daemon=True)
        self._workers = workers
        self._pace = pace
        self._stuck_timeout = stuck_timeout
        self._fail = fail
        self._ended = threading.Event()

    def run(self) -> None:
        """The thread."""
        while not self._ended.wait(min(_LONGEST_PAUSE, self._stuck_timeout / _LOOKS)):
            failure = self._look()
            if failure is not None:
                self._fail(failure)
                return

    def end(self) -> None:
        """Looks no more, before workers end as they should."""
        self._ended.set()

    def _look(self) -> Failure | None:
        limit = max(self._stuck_timeout, _TIMES_SLOWEST * self._pace.slowest_step)
        for worker in self._workers:
            if not worker.is_alive() and not self._ended.is_set():
                return Failure(WORKER_DIED, "A thread that makes masks ended without a word.")
            began, most = worker.step_began, limit * worker.step_work
            if began is not None and time.monotonic() - began > most:
                reason = f"An image takes more than {most:.3g} s; raise --stuck_timeout if images may take as long."
                return Failure(JOB_STUCK, reason)
        return None
