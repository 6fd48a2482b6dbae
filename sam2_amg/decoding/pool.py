"""Decoders for many requests at once, with a deadline and a bound on memory."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import Limits
from sam2_amg.decoding.budget import Budget, Lease
from sam2_amg.decoding.decoder import Decoder, DecoderDied, Empty, ForkServer, describe_end, usual_memory
from sam2_amg.decoding.refusals import truncated
from sam2_amg.errors import RequestError, shutting_down

logger = logging.getLogger(__name__)
# A codec that crashes does so because of the file, and would again: the request is told so.
_CRASHES = {-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}
_RETRY_AFTER = 2  # seconds
_ENOUGH = 0.9  # of the time until the deadline: who has waited so long is not decoded in what is left
# Bytes that are taken before a file is read: enough for a JPEG of five megapixels, which then need not be asked for.
_USUAL = 48 << 20


class DecoderPool:
    """Decodes images in processes of their own. A codec that crashes, hangs or takes too much memory takes its process
    along, which is replaced, and harms no other request.

        with pool.decoded(data) as image:      # RequestError: a 4xx, 503 decoders_busy, 504 timeout
            ...                                # image: uint8 RGB [H, W, 3]

    The bytes of an image count as taken until the end of the block.
    """

    def __init__(self, limits: Limits, empty: Empty = usual_memory) -> None:
        """Pixels lie in memory that `empty` makes."""
        self._limits = limits
        self.size = limits.decoder_count
        self.budget = Budget(limits.max_decoded_mib << 20, max(1, self.size - 1))
        self._server = ForkServer(limits, empty)
        self._changed = threading.Condition()
        self._idle: list[Decoder | None] = [self._server.fork() for _ in range(self.size)]  # None: to be forked
        self._closed = False

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def decoded(
        self, data: bytes, deadline: float | None = None, stretch: str | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """The pixels of an image file, uint8 RGB [H, W, 3], as `decode_image` decodes them with `stretch`.

        `deadline` is a time of time.monotonic; --decode_timeout from now where None. Raises RequestError: those of
        `decode_image`, too_much_memory (413), decoders_busy (503), timeout (504) and internal_error (500).
        """
        begun = time.monotonic()
        if deadline is None:
            deadline = begun + self._limits.decode_timeout
        image, lease = self._decode(data, begun, deadline, stretch)
        try:
            yield image
        finally:
            del image
            lease.close()

    def warm_up(self, data: bytes) -> None:
        """Has every decoder decode a small photograph, so that no request waits for a decoder to start."""
        begun = time.monotonic()
        deadline = begun + self._limits.decode_timeout
        with ExitStack() as stack:
            for decoder in [stack.enter_context(self._decoder(begun, deadline)) for _ in range(self.size)]:
                with suppress(RequestError):  # --max_pixels may be less than the photograph has
                    decoder.decode(data, _USUAL, deadline)

    def close(self) -> None:
        """Ends all decoders. Requests that are being decoded fail; no further one is taken."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        self._server.close()
        for decoder in filter(None, idle):
            decoder.close()

    def _decode(
        self, data: bytes, begun: float, deadline: float, stretch: str | None
    ) -> tuple[NDArray[np.uint8], Lease]:
        """The image, and what it holds of the budget. A decoder does not wait for bytes: it decodes other images
        meanwhile."""
        lease = self.budget.nothing()
        try:
            while True:
                with self._decoder(begun, deadline) as decoder:
                    if not lease.count:
                        lease = self.budget.try_take(min(_USUAL, self.budget.small)) or lease
                    image = decoder.decode(data, lease.count, deadline, stretch)
                    if isinstance(image, int):
                        needs = image
                        lease.close()
                        lease = self._take(decoder, needs)
                        if lease.count >= needs:
                            image = decoder.go_on(lease.count, deadline)
                if not isinstance(image, int):
                    lease.keep(image.nbytes)
                    return image, lease
                lease = self.budget.take(needs, deadline)
        except BaseException:
            lease.close()
            raise

    def _take(self, decoder: Decoder, needs: int) -> Lease:
        """The bytes that an image needs; where there are none, now or ever, the decoder is told to forget it."""
        lease = None
        try:
            lease = self.budget.try_take(needs)
        finally:
            if lease is None:
                decoder.skip()
        return lease or self.budget.nothing()

    @contextmanager
    def _decoder(self, begun: float, deadline: float) -> Iterator[Decoder]:
        """A decoder of one's own. One that has ended, or is late, is replaced. Raises RequestError."""
        decoder = self._wait_for_one(deadline)
        waited = time.monotonic() - begun
        try:
            if waited > _ENOUGH * (deadline - begun):
                raise self._busy()
            if decoder is None or decoder.has_ended:
                decoder = self._fork_in_place_of(decoder)
            yield decoder
        except RequestError:
            raise
        except TimeoutError as error:
            logger.error("a decoder is late, and is killed")
            if waited > (deadline - begun) / 2:  # in that time it might have been done
                raise self._busy() from error
            raise self._late() from error
        except DecoderDied as error:
            if self._closed:
                raise shutting_down() from error
            logger.error("a decoder ended while it decoded: %s", error)
            raise self._fate(error.status) from error
        except BaseException:
            if decoder is not None:
                decoder.is_usable = False  # nobody knows what it waits for
            raise
        finally:
            self._put(decoder)

    def _wait_for_one(self, deadline: float) -> Decoder | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._idle or self._closed, deadline - time.monotonic()):
                raise self._busy()
            if self._closed:
                raise shutting_down()
            return self._idle.pop(0)  # in turn, so that all have soon grown as far as they will

    def _put(self, decoder: Decoder | None) -> None:
        """Puts a decoder back, or another in its place."""
        if not self._closed and decoder is not None and not decoder.is_usable:
            try:
                decoder = self._fork_in_place_of(decoder)
            except OSError:  # too many descriptors: the next request tries again
                logger.exception("a decoder could not be replaced")
                decoder = None
        with self._changed:
            if not self._closed:
                self._idle.append(decoder)
                self._changed.notify()
                return
        if decoder is not None:
            decoder.close()

    def _fork_in_place_of(self, decoder: Decoder | None) -> Decoder:
        """A new decoder. What is left of the old one is cleared away first."""
        if decoder is not None:
            logger.error("a decoder ended, and is replaced")
            decoder.close()
        return self._server.fork()

    def _busy(self) -> RequestError:
        message = f"All {self.size} decoders (--decoders) are busy; try again in {_RETRY_AFTER} s."
        return RequestError(503, "decoders_busy", message, retry_after=_RETRY_AFTER)

    def _late(self) -> RequestError:
        message = f"The image was not decoded within {self._limits.decode_timeout:g} s (--decode_timeout)."
        return RequestError(504, "timeout", message)

    def _fate(self, status: int | None) -> RequestError:
        """What a request is told whose decoder ended."""
        if status in _CRASHES:
            return truncated(f"its decoder crashed, {describe_end(status)}")
        if status == -signal.SIGXCPU:
            return self._late()
        return RequestError(500, "internal_error", f"The image's decoder {describe_end(status)}; try again.")
