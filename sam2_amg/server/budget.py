"""A bound on bytes that many holders share."""

from __future__ import annotations


class ByteBudget:
    """Counts bytes that are held, and says if more fit. Used by one thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, count: int) -> bool:
        """Holds `count` more bytes; False, and nothing more is held, if they exceed the limit."""
        if self.held + count > self.limit:
            return False
        self.held += count
        return True

    def give(self, count: int) -> None:
        """Releases `count` bytes."""
        self.held -= count
        assert self.held >= 0, "more bytes were released than held"
