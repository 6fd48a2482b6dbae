"""From a file and what is asked to an answer: decode, make masks, choose among them, render."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from sam2_amg.answers.filters import Filters, filtered
from sam2_amg.answers.options import Answer, AnswerError, Segmented
from sam2_amg.answers.render import render
from sam2_amg.config import Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import RequestError
from sam2_amg.process.wanted import ending_early
from sam2_amg.server.desk import Desk, Made
from sam2_amg.server.engine import Engine
from sam2_amg.server.parameters import Asked, refusing
from sam2_amg.server.slots import cancelled, timed_out
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.upload import Upload


class Segmenting:
    """Makes the answers of a server in its own process. Safe to use from many threads."""

    def __init__(self, engine: Engine, decoders: DecoderPool) -> None:
        self._engine, self._decoders = engine, decoders
        self._drawing = threading.Lock()  # one overlay at a time, because each takes several times its image's memory

    def answer(self, upload: Upload, asked: Asked, ticket: Ticket) -> Made:
        """The answer to one image, for which the caller holds a slot.

        Raises RequestError for what is wrong with the image, and as `Engine.generate` and `DecoderPool.decoded` do;
        cancelled (503) and timeout (504) also between two masks of an answer.
        """
        engine, limits, parameters = self._engine, self._engine.limits, asked.parameters
        assert engine.own is not None  # without a generator nobody has a slot
        deadline = min(time.monotonic() + limits.decode_timeout, ticket.deadline)
        with (
            self._decoders.decoded(upload.data, deadline, parameters.stretch) as image,
            ending_early(partial(_require_wanted, ticket, limits)),
        ):
            size = (image.shape[0], image.shape[1])
            with refusing():
                config = parameters.config(engine.own, size)
            records = engine.generate(image, ticket, config)
            if asked.filters != Filters():
                records = filtered(records, size, asked.filters)
            with in_turn(self._drawing, ticket, limits) if asked.format == "png" else nullcontext():
                found = Segmented(records, size, upload.name, asked.options, image)
                return Made(_rendered(asked, found), len(records))


def local_desk(engine: Engine, decoders: DecoderPool) -> Desk:
    """A desk whose answers are made in this process."""
    return Desk(engine, Segmenting(engine, decoders))


def _rendered(asked: Asked, found: Segmented) -> Answer:
    try:
        return render(asked.format, found.records, found.size, found.name, found.options, found.image)
    except AnswerError as error:
        message = f"The format {asked.format} cannot hold the masks: {error}."
        raise RequestError(400, "too_many_masks", message) from error


def _require_wanted(ticket: Ticket, limits: Limits) -> None:
    """Raises RequestError cancelled (503) or timeout (504) once nobody waits for the answer."""
    if ticket.cancelled.is_set():
        raise cancelled()
    if ticket.remaining == 0:
        raise timed_out(limits.request_timeout)


@contextmanager
def in_turn(lock: threading.Lock, ticket: Ticket, limits: Limits) -> Iterator[None]:
    """Holds a lock. Raises RequestError timeout (504) if the request's time ends before it is its turn."""
    if not lock.acquire(timeout=min(ticket.remaining, threading.TIMEOUT_MAX)):
        raise timed_out(limits.request_timeout)
    try:
        yield
    finally:
        lock.release()
