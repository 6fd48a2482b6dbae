"""Many images in one request -> a line of JSON for each, as they finish."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import orjson

from sam2_amg.answers.json_line import json_line
from sam2_amg.errors import RequestError
from sam2_amg.server.archives import Entry, as_text, entries_of, is_archive, too_many
from sam2_amg.server.desk import Desk
from sam2_amg.server.messages import error_body, internal_error
from sam2_amg.server.parameters import Asked
from sam2_amg.server.slots import cancelled
from sam2_amg.server.ticket import Ticket, stages_of
from sam2_amg.server.upload import Upload

logger = logging.getLogger(__name__)
_PAUSE = 0.05  # seconds between two looks for a free slot


def images_of(uploads: Sequence[Upload], most: int, largest: int, must_be_archives: bool) -> list[Entry]:
    """The images of a request: its files, with those of archives in the place of these.

    Raises RequestError as `entries_of` does, and missing_field (400) for none.
    """
    entries: list[Entry] = []
    for upload in uploads:
        if must_be_archives or is_archive(upload.data):
            entries += entries_of(upload.data, most, largest)
        else:
            entries.append(Entry(as_text(upload.name), partial(_same, upload.data)))
        if len(entries) > most:
            raise too_many(most)
    if not entries:
        raise RequestError(400, "missing_field", "The request has no image: its form or its archive has no file.")
    return entries


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Batch:
    """Answers images of one request. `in_flight` is how many at a time."""

    desk: Desk
    asked: Asked
    ticket: Ticket
    request_timeout: float
    in_flight: int

    def lines(self, entries: Sequence[Entry], done: Callable[[], None]) -> Lines:
        """A line for each entry, as they finish. `done` is called at the end, whatever it is."""
        tasks = [partial(self._line, index, entry) for index, entry in enumerate(entries)]
        return Lines(tasks, self.in_flight, partial(self._end, done))

    def _end(self, done: Callable[[], None], is_whole: bool) -> None:
        if is_whole:
            self.ticket.enter("done")
        self.ticket.cancel()  # those that are still under way, if nobody reads on
        done()

    def _line(self, index: int, entry: Entry) -> bytes:
        head = {"index": index, "name": entry.name}
        try:
            return json_line({**head, "masks": orjson.Fragment(self._masks(index, entry))})
        except RequestError as error:
            return json_line({**head, **error_body(error.code, error.message)})
        except Exception as error:
            logger.exception("image %d of a batch failed", index)
            failed = internal_error(error)
            return json_line({**head, **error_body(failed.code, failed.message)})

    def _masks(self, index: int, entry: Entry) -> bytes:
        """The answer to one image, as JSON. Its time begins here."""
        ticket = Ticket(time.monotonic() + self.request_timeout, f"{self.ticket.request_id}/{index}")
        with self.ticket.calling_on_cancel(ticket.cancel):
            self.desk.tickets.add(ticket)
            try:
                with self._slot(ticket):
                    if not ticket.enter("decoding"):
                        raise cancelled()
                    data = entry.read()
                    if not data:
                        raise RequestError(400, "empty_body", "The file is empty.")
                    answer = self.desk.answer(Upload(entry.name, data), self.asked, ticket)
            finally:
                ticket.enter("done")
        self.desk.metrics.took(stages_of(ticket, ticket.times["received"])[1:])
        return answer.data.rstrip(b"\n")

    @contextmanager
    def _slot(self, ticket: Ticket) -> Iterator[None]:
        """Holds a slot of the queue, after waiting for one. Raises RequestError as `Engine.slot` does."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self.desk.engine.slot())
                    break
                except RequestError as error:
                    if error.code != "queue_full" or ticket.remaining == 0:
                        raise
                if ticket.cancelled.wait(_PAUSE):
                    raise cancelled()
            yield


class Lines:
    """What tasks return, as they finish: an iterator that works ahead no further than `at_once` tasks.

    What is finished and not asked for counts as one of these. So who reads slowly slows only these tasks.
    """

    def __init__(self, tasks: Sequence[Callable[[], bytes]], at_once: int, end: Callable[[bool], None]) -> None:
        """`end` is called once, and told whether all lines were asked for."""
        self._tasks = deque(tasks)
        self._at_once = at_once
        self._end = end
        self._has_ended = False
        self._threads = ThreadPoolExecutor(at_once, "batch")
        self._running: set[Future[bytes]] = set()
        self._lock = threading.Lock()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> bytes:
        while self._tasks and len(self._running) < self._at_once:
            self._running.add(self._threads.submit(self._tasks.popleft()))
        if not self._running:
            self._finish(True)
            raise StopIteration
        done = next(iter(wait(self._running, return_when=FIRST_COMPLETED).done))
        self._running.discard(done)
        return done.result()

    def close(self) -> None:
        """Nobody asks for more: begins nothing more."""
        self._finish(False)

    def _finish(self, is_whole: bool) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
        self._tasks.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end(is_whole)
