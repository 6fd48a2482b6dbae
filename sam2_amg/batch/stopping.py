"""Ctrl-C and SIGTERM: the first ends the job after the shard in hand, the second drops that."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType

_GRACE = 10.0  # seconds for what is under way when a shard is dropped
logger = logging.getLogger("sam2_amg.batch")


class Stopper:
    """Whether the job is to end. `status` is the exit status then: 128 and the signal's number.

    Before the job `has_begun` to load a model there is nothing to wait for: a signal ends it at once, by
    KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.has_begun = False
        self.status = 0

    def install(self) -> None:
        """Handles the signals from now on; to be called after all imports."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if not self.has_begun:
            self.status = 128 + number
            raise KeyboardInterrupt
        if self.is_stopping:
            timer = threading.Timer(_GRACE, os._exit, (self.status,))
            timer.daemon = True
            timer.start()
            raise KeyboardInterrupt
        self.is_stopping, self.status = True, 128 + number
        message = "stopping after the shard in hand; once more (Ctrl-C) drops it"
        threading.Thread(target=logger.warning, args=(message,)).start()  # the log may be locked by this very thread
