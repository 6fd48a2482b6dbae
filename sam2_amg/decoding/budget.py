"""Bytes that all requests together may take for decoding and for decoded pixels."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from sam2_amg.decoding.refusals import too_much_memory
from sam2_amg.errors import RequestError

_MIB = 1 << 20
_LARGE = 8  # an image that needs more than this fraction of all bytes is large
_RETRY_AFTER = 5  # seconds


@dataclass(eq=False)
class Lease:
    """Bytes taken of a budget, until `close`. A large image also holds one of the lanes while it is decoded."""

    budget: Budget
    count: int
    lane: bool

    def keep(self, count: int) -> None:
        """Gives back all but `count` bytes, and the lane: the image is decoded."""
        self.budget._change(self, count)

    def close(self) -> None:
        """Gives back what is left; a second time it does nothing."""
        self.budget._change(self, 0)


class Budget:
    """`total` bytes, shared by threads. No more than `lanes` large images are decoded at a time, and together with
    others they leave an eighth of the bytes free, so that a few of them do not keep ordinary photographs waiting."""

    def __init__(self, total: int, lanes: int) -> None:
        self.total = total
        self._taken = 0
        self._lanes = lanes
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """Bytes in use."""
        return self._taken

    @property
    def small(self) -> int:
        """The most bytes that an image may need and not be large."""
        return self.total // _LARGE

    def nothing(self) -> Lease:
        """No bytes."""
        return Lease(self, 0, False)

    def try_take(self, count: int) -> Lease | None:
        """`count` bytes, or None where others have them. Raises RequestError too_much_memory (413) where there are
        fewer in all."""
        if count > self.total:
            raise too_much_memory(f"{-(-count // _MIB)} MiB", self.total // _MIB)
        with self._changed:
            return self._take(count) if self._is_free(count) else None

    def take(self, count: int, deadline: float) -> Lease:
        """`count` bytes, waited for until `deadline` (of time.monotonic). Raises RequestError decoders_busy (503), or
        too_much_memory (413)."""
        if lease := self.try_take(count):
            return lease
        with self._changed:
            if self._changed.wait_for(lambda: self._is_free(count), deadline - time.monotonic()):
                return self._take(count)
        message = (
            f"Other images take the {self.total // _MIB} MiB for decoding (--max_decoded_mib); "
            f"try again in {_RETRY_AFTER} s."
        )
        raise RequestError(503, "decoders_busy", message, retry_after=_RETRY_AFTER)

    def _is_large(self, count: int) -> bool:
        return count > self.small

    def _is_free(self, count: int) -> bool:
        if not self._is_large(count):
            return self._taken + count <= self.total
        spare = self.small if self._taken else 0
        return self._lanes > 0 and self._taken + count <= self.total - spare

    def _take(self, count: int) -> Lease:
        lease = Lease(self, count, self._is_large(count))
        self._taken += count
        self._lanes -= lease.lane
        return lease

    def _change(self, lease: Lease, count: int) -> None:
        with self._changed:
            self._taken += count - lease.count
            self._lanes += lease.lane
            lease.count, lease.lane = count, False
            self._changed.notify_all()
