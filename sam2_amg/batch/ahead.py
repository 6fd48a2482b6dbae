"""How far decoding may be ahead of the device: in images, and in bytes of their pixels."""

from __future__ import annotations

import threading


class Held:
    """What one image holds, from the beginning of its decoding until it is finished."""

    def __init__(self) -> None:
        self.bytes = 0
        self.is_finished = False


class Ahead:
    """Bounds what is decoded and not finished. Whoever begins with images waits for others to be finished.

    It holds at most `most_bytes` and the pixels of `most_decoding` images and a group: nobody knows an image's size
    before it is decoded.
    """

    def __init__(self, most_decoding: int, most_bytes: int) -> None:
        self.most_decoding, self.most_bytes = most_decoding, most_bytes
        self._decoding = 0  # images that have been begun, and are not decoded
        self._bytes = 0
        self._changed = threading.Condition()

    def begin(self, count: int) -> list[Held]:
        """Waits until there is room, and begins with `count` images."""
        with self._changed:
            self._changed.wait_for(lambda: self._decoding <= self.most_decoding and self._bytes <= self.most_bytes)
            self._decoding += count
        return [Held() for _ in range(count)]

    def decoded(self, held: Held, count: int) -> None:
        """An image is decoded to `count` bytes; 0 if it cannot be."""
        with self._changed:
            self._decoding -= 1
            if not held.is_finished:
                held.bytes = count
                self._bytes += count
            self._changed.notify_all()

    def finished(self, held: Held) -> None:
        """An image is finished, or given up."""
        with self._changed:
            held.is_finished = True
            self._bytes -= held.bytes
            held.bytes = 0
            self._changed.notify_all()
