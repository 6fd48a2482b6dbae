"""What signals do to a program that is not serving yet."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

_GRACE = 10.0  # seconds to clear away what is half-made


def end_on_signals() -> None:
    """SIGTERM and Ctrl-C end the process where it stands, without a word: nothing is half-made while it imports."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def exit_on_signals() -> None:
    """SIGTERM and Ctrl-C end the process, with what is half-made (a download, packages) cleared away.

    To be called once everything is imported: an import may swallow the exception that a signal raises. Whatever else
    does is given ten seconds.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        timer = threading.Timer(_GRACE, os._exit, (128 + number,))
        timer.daemon = True
        timer.start()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
