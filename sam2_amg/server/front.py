"""The HTTP server: accepts connections, bounds their number and the bytes they hold, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import quote

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError
from sam2_amg.server.budget import ByteBudget
from sam2_amg.server.connection import Connection, State
from sam2_amg.server.listen import listening
from sam2_amg.server.messages import Answer, Head, Stream, error_answer, internal_error
from sam2_amg.server.ticket import Ticket

logger = logging.getLogger(__name__)
access = logging.getLogger("sam2_amg.access")
_SPARE_DESCRIPTORS = 160  # for files, pipes of decoders and the like that are opened later
_MOST_CONNECTIONS = 20_000
_QUICK_THREADS = 1  # for what takes a few milliseconds: many such requests share a core with the GPU's threads
_FRESH = 1.0  # seconds in which a connection is left alone, if others can make room
_SMALL_ANSWER = 64 << 10  # bytes; health and errors are sent whatever others hold
_ACCEPTED_AT_ONCE = 16  # connections that asyncio accepts before it does anything else
_BACKLOG = 1024  # connections that the system keeps until they are accepted
_LAST_ANSWERS = 2.0  # seconds to send what a drain that ran out of time has left
_LAST_READS = 1.0  # seconds in which refused clients may still send, so that they get to read why
_MIB = 1 << 20
_PATH = "/:@!$&'()*+,;=~"  # characters that the log shows as they are


class Handler(Protocol):
    """What answers requests."""

    def largest_body(self, head: Head) -> int:
        """How many bytes the body of this request may have."""
        ...

    def refuse(self, head: Head) -> Answer | None:
        """The answer to a request whose body need not be read; None to go on. Called in the event loop: never waits."""
        ...

    def is_instant(self, head: Head) -> bool:
        """Whether `answer` returns at once, so that it can run in the event loop."""
        ...

    def is_work(self, head: Head) -> bool:
        """Whether `answer` may wait for the queue."""
        ...

    def open(self, head: Head) -> Ticket:
        """A ticket for a request that is whole. It is cancelled if the client leaves."""
        ...

    def answer(self, head: Head, body: bytes, ticket: Ticket) -> Answer:
        """The answer to a whole request, in a thread."""
        ...

    def sent(self, head: Head | None, answer: Answer, seconds: float) -> None:
        """Is told of an answer that was sent, or given up, and the seconds since the request's first byte."""
        ...

    def dress(self, answer: Answer, head: Head | None) -> Answer:
        """The answer with what every answer has; None if there is no request that could be read."""
        ...

    def too_large(self) -> RequestError:
        """413: the body is too large."""
        ...

    def no_room(self) -> RequestError:
        """503: all requests together hold too many bytes."""
        ...

    def shutting_down(self) -> RequestError:
        """503: the server is at its end."""
        ...


class Front:
    """Serves a bound socket. `run()` returns once `drain()` has been called and accepted requests are answered.

    Bodies and answers of all connections together hold at most `max_held_mib`. Raises StartupError if the port has been
    taken since the socket was bound.
    """

    def __init__(self, handler: Handler, sock: socket.socket, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.budget = ByteBudget(limits.max_held_mib * _MIB)
        self.largest_discard = 4 * limits.max_body_mib * _MIB  # bytes of a refused body that are read and thrown away
        self.is_draining = False
        self.gave_up = False  # whether the drain ran out of time
        self.most_connections = count_descriptors()
        self._sock = listening(sock, _BACKLOG)
        self._connections: dict[Connection, None] = {}  # in order of arrival
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._work = ThreadPoolExecutor(2 * limits.queue_size + 8, "request")  # uploads, and as many streams
        self._quick = ThreadPoolExecutor(_QUICK_THREADS, "quick")
        self.now = time.monotonic

    # Running and draining.

    def run(self, give_up: Callable[[], None] = lambda: None) -> None:
        """Serves until drained. `give_up` is called if requests are unanswered when `drain_timeout` is over: it is to
        have them answered at once."""
        asyncio.run(self._serve(give_up))

    def drain(self) -> None:
        """Has `run` end: connections are taken for `drain_delay` more seconds, accepted requests are answered within
        `drain_timeout`. May be called from a signal handler."""
        self.is_draining = True
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _serve(self, give_up: Callable[[], None]) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            functools.partial(Connection, self), sock=self._sock, backlog=_ACCEPTED_AT_ONCE
        )
        self._sock.listen(_BACKLOG)  # asyncio has said another number
        if self.is_draining:
            self._wake.set()
        await self._wake.wait()
        await asyncio.sleep(self.limits.drain_delay)
        server.close()
        for connection in list(self._connections):
            connection.stop_receiving(self.handler.shutting_down())
        if not await self._none_is(lambda one: one.is_busy, self.limits.drain_timeout):
            self.gave_up = True
            await self._loop.run_in_executor(self._quick, give_up)
            await self._none_is(lambda one: one.is_busy, _LAST_ANSWERS)
        await self._none_is(lambda one: one.state is State.CLOSING, _LAST_READS)
        for connection in list(self._connections):
            connection.give_up()
        for pool in (self._work, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _none_is(self, what: Callable[[Connection], bool], seconds: float) -> bool:
        """Waits until no connection is like that; False if some still are after so many seconds."""
        end = self.now() + seconds
        while any(map(what, self._connections)):
            if self.now() >= end:
                return False
            await asyncio.sleep(0.02)
        return True

    # What connections ask.

    def add(self, connection: Connection) -> None:
        """A new connection; at the limit, one that has kept the server waiting makes room."""
        if len(self._connections) >= self.most_connections:
            waiting = [one for one in self._connections if one.state is not State.ANSWERING]
            victim = min(waiting, key=self._patience, default=connection)
            victim.give_up()
            self.remove(victim)
            if victim is connection:
                return
        self._connections[connection] = None

    def _patience(self, one: Connection) -> tuple[int, float]:
        """Sorts connections by how little is lost with them, those first that have waited longest."""
        fresh = self.now() - one.since < _FRESH
        order = (State.CLOSING, State.IDLE, State.RECEIVING, State.SENDING)
        return (len(order) if fresh and one.state is not State.CLOSING else order.index(one.state)), one.since

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a connection's coroutine, which raises nothing."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def handle(self, head: Head, body: bytes) -> tuple[Callable[[], object], asyncio.Future[Answer]]:
        """What to call if the client leaves, and the answer to come."""
        ticket = self.handler.open(head)
        loop = asyncio.get_running_loop()
        task = functools.partial(self._answer, head, body, ticket)
        if self.handler.is_instant(head):
            answer: asyncio.Future[Answer] = loop.create_future()
            answer.set_result(task())
            return ticket.cancel, answer
        return ticket.cancel, loop.run_in_executor(self._work if self.handler.is_work(head) else self._quick, task)

    def _answer(self, head: Head, body: bytes, ticket: Ticket) -> Answer:
        try:
            return self.handler.answer(head, body, ticket)
        except BaseException as error:  # whatever it is, the client gets an answer
            logger.exception("%s %s failed", head.method, head.path)
            return error_answer(internal_error(error))

    def next_piece(self, stream: Stream) -> asyncio.Future[bytes | None]:
        """The next piece of a body that is made bit by bit; None after the last."""
        return asyncio.get_running_loop().run_in_executor(self._work, _next_of, stream)

    def end_stream(self, stream: Stream) -> None:
        """Closes a stream, in a thread."""
        with contextlib.suppress(RuntimeError):  # the threads have ended, and with them whatever makes the stream
            self._work.submit(stream.close)

    def make_room(self, count: int, wanting: Connection) -> int:
        """Holds the bytes of an answer, and returns how many it counts. Clients that have not read on for longest are
        sent away until there is room."""
        if count <= _SMALL_ANSWER:
            return 0
        if not self.budget.take(count):
            unread = [one for one in self._connections if one.is_sending and one is not wanting]
            unread.sort(key=lambda one: one.since, reverse=True)
            while unread and self.budget.held + count > self.budget.limit:
                unread.pop().give_up()
            self.budget.held += count  # what is made is sent, also if bodies of others fill the limit
        return count

    def log(self, head: Head | None, client: str, answer: Answer, count: int, note: str) -> None:
        """Counts an answer of `count` bytes, and writes a line of the access log."""
        seconds = self.now() - head.received if head else 0.0
        self.handler.sent(head, answer, seconds)
        fields = {
            "client": client,
            "method": head.method if head else None,
            "path": quote(head.path, safe=_PATH, encoding="latin-1") if head else None,
            "status": answer.status,
            "bytes": count,
            "milliseconds": round(seconds * 1e3, 1),
            "request_id": head.request_id if head else None,
            "note": note or None,
        }
        text = '%(client)s "%(method)s %(path)s" %(status)d %(bytes)d bytes %(milliseconds).1f ms %(request_id)s'
        access.info(text + (" (%(note)s)" if note else ""), fields, extra={"fields": fields})

    def date(self) -> str:
        """The Date header."""
        return formatdate(usegmt=True)


def _next_of(stream: Stream) -> bytes | None:
    try:
        return next(stream)
    except StopIteration:  # which no future can hold
        return None


def count_descriptors() -> int:
    """How many connections the process can hold, after raising its limit of descriptors as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    free = (soft if soft != resource.RLIM_INFINITY else _MOST_CONNECTIONS * 2) - len(os.listdir("/proc/self/fd"))
    return max(16, min(_MOST_CONNECTIONS, free - _SPARE_DESCRIPTORS - 4 * _ACCEPTED_AT_ONCE))
