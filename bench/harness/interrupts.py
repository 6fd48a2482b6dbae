"""The end of long measurements before their time, by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0  # seconds
_last = float("-inf")  # when a signal was heard


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, but not twice in a second: `timeout` sends its signal to a program, and then to the
    program's group."""
    global _last
    before, _last = _last, time.monotonic()
    if _last - before > _AGAIN:
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """A block in which Ctrl-C and SIGTERM, the end of a time limit, raise KeyboardInterrupt."""
    replaced = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


@contextmanager
def stopping_early() -> Iterator[None]:
    """A block that Ctrl-C or SIGTERM ends, while the program goes on with what has been measured in it."""
    with interruptible():
        try:
            yield
        except KeyboardInterrupt:
            print("interrupted: what has been measured is kept", file=sys.stderr)
