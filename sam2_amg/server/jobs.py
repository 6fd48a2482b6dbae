"""Images that wait for a worker, in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig
from sam2_amg.pipeline.base import PendingResult
from sam2_amg.server.slots import Slots, Waiter
from sam2_amg.server.ticket import Ticket


@dataclass(frozen=True, eq=False)
class Job(Waiter[PendingResult]):
    """An image, and the answer that its caller waits for.

    `config` has the generator's parameters for it; None for the generator's own.
    """

    image: NDArray[np.uint8]
    ticket: Ticket
    config: GeneratorConfig | None = None
    answer: Future[PendingResult] = field(default_factory=Future)


class JobQueue(Slots[Job]):
    """Slots, and the jobs of those that wait. Safe to use from many threads."""

    def take(self, most: Callable[[], int]) -> list[Job]:
        """Waits for jobs that somebody waits for, and takes up to as many as `most` then says.

        None if there will be no more of them.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._line or self._is_over)
                taken: list[Job] = []
                while self._line and len(taken) < most():
                    job = self._line.popleft()
                    if job.is_wanted:
                        taken.append(job)
                if taken or self._is_over:
                    return taken

    @property
    def _is_over(self) -> bool:
        return self._abandoned or (self._closing and self._in_flight == 0)
