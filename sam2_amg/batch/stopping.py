"""Ctrl-C and SIGTERM: the first ends the job after the shard in hand, the second drops that."""

from __future__ import annotations

import logging
import signal
from types import FrameType

logger = logging.getLogger("sam2_amg.batch")


class Stopper:
    """Whether the job is to end. `status` is the exit status then: 128 and the signal's number."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.status = 0

    def install(self) -> None:
        """Handles the signals from now on; to be called after all imports."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.is_stopping:
            raise KeyboardInterrupt
        self.is_stopping, self.status = True, 128 + number
        logger.warning("stopping after the shard in hand; once more (Ctrl-C) drops it")
