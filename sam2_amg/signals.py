"""What signals do to a program that is not serving yet."""

from __future__ import annotations

import signal
from types import FrameType


def exit_on_signals() -> None:
    """SIGTERM and Ctrl-C end the process, with what is half-made (a download, packages) cleared away."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
