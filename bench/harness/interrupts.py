"""The end of long measurements before their time, by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopping_early() -> Iterator[None]:
    """A block that Ctrl-C or SIGTERM ends, while the program goes on with what has been measured in it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # the end of a time limit is like Ctrl-C
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted: what has been measured is kept", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)
