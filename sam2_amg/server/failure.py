"""What makes the process useless, the exit status that says so, and how the process ends."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import dataclass

from sam2_amg.errors import RequestError

logger = logging.getLogger(__name__)

# Exit statuses, which docs/deployment.md explains. Python and the command line use 1 and 2, signals 128 and more.
DEVICE_FAILED = 70
JOB_STUCK = 71
WORKER_DIED = 72

GRACE = 2.0  # seconds in which requests receive their answers
_FLUSH = 1.0  # seconds for what is still to be written, which another thread may block
_RETRY_AFTER = 10  # seconds in which a supervisor has started the server again, most likely


@dataclass(frozen=True)
class Failure:
    """Why this process cannot answer any more, in a sentence, and the status it ends with."""

    exit_status: int
    reason: str

    def refusal(self) -> RequestError:
        """What every request gets from now on."""
        return RequestError(
            503, "failed", f"{self.reason} The server ends, to be started again.", retry_after=_RETRY_AFTER
        )


def end_process(failure: Failure) -> None:
    """Ends the process with the failure's status in a few seconds; returns at once.

    Meanwhile requests receive their answers. Threads that hang, in C code too, do not stop it.
    """
    threading.Thread(target=_end, args=(failure,), name="end", daemon=True).start()


def _end(failure: Failure) -> None:
    time.sleep(GRACE)
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_FLUSH)
    os._exit(failure.exit_status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for handler in logging.getLogger().handlers:
        handler.flush()
