"""From a file and what is asked to an answer: decode, make masks, choose among them, render."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sam2_amg.answers.filters import Filters, filtered
from sam2_amg.answers.options import Answer, AnswerError, Segmented
from sam2_amg.answers.render import render
from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.errors import RequestError
from sam2_amg.server.desk import Desk
from sam2_amg.server.jobs import timed_out
from sam2_amg.server.parameters import Asked, refusing
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.upload import Upload


class Segmenting:
    """Makes the answers of a server. Safe to use from many threads."""

    def __init__(self, own: GeneratorConfig, limits: Limits, desk: Desk) -> None:
        """`own` has the generator's parameters until there is a generator."""
        self._own, self._limits, self._desk = own, limits, desk
        self._drawing = threading.Lock()  # one overlay at a time, because each takes several times its image's memory

    @property
    def own(self) -> GeneratorConfig:
        """The parameters of the generator, where a request gives none."""
        generator = self._desk.engine.generator
        return generator.config if generator else self._own

    def answer(self, upload: Upload, asked: Asked, ticket: Ticket) -> Answer:
        """The answer to one image, for which the caller holds a slot.

        Raises RequestError for what is wrong with the image, and as `Engine.generate` and `DecoderPool.decoded` do.
        """
        desk, parameters = self._desk, asked.parameters
        deadline = min(time.monotonic() + self._limits.decode_timeout, ticket.deadline)
        with desk.decoders.decoded(upload.data, deadline, parameters.stretch) as image:
            size = (image.shape[0], image.shape[1])
            with refusing():
                config = parameters.config(self.own, size)
            records = desk.engine.generate(image, ticket, config)
            if asked.filters != Filters():
                records = filtered(records, size, asked.filters)
            desk.metrics.segmented(len(records))
            with in_turn(self._drawing, ticket, self._limits) if asked.format == "png" else nullcontext():
                return _rendered(asked, Segmented(records, size, upload.name, asked.options, image))


def _rendered(asked: Asked, found: Segmented) -> Answer:
    try:
        return render(asked.format, found.records, found.size, found.name, found.options, found.image)
    except AnswerError as error:
        message = f"The format {asked.format} cannot hold the masks: {error}."
        raise RequestError(400, "too_many_masks", message) from error


@contextmanager
def in_turn(lock: threading.Lock, ticket: Ticket, limits: Limits) -> Iterator[None]:
    """Holds a lock. Raises RequestError timeout (504) if the request's time ends before it is its turn."""
    if not lock.acquire(timeout=min(ticket.remaining, threading.TIMEOUT_MAX)):
        raise timed_out(limits.request_timeout)
    try:
        yield
    finally:
        lock.release()
