"""Signal handling of a program that does not serve yet."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_GRACE = 10.0  # seconds to clean up before the process is ended


def end_on_signals() -> None:
    """SIGTERM and Ctrl-C end the process at once. For the time of imports, which leave nothing to clean up."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def exit_on_signals() -> None:
    """SIGTERM and Ctrl-C raise SystemExit, so that unfinished files (a download, packages) are deleted.

    Call it after all imports: an import may swallow the exception. A process that has not ended after 10 seconds is
    ended.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(_GRACE, os._exit, (128 + number,))
        timer.daemon = True
        timer.start()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
