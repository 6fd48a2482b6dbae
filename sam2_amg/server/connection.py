"""One client's connection: bytes -> requests -> answers, each step with a deadline.

h11 reads and writes HTTP/1.1. This file adds what h11 leaves to a server: time, memory, and refusing early.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import TYPE_CHECKING, Any

import h11

from sam2_amg.errors import RequestError
from sam2_amg.server.messages import (
    Answer,
    Head,
    Stream,
    bad_request,
    error_answer,
    head_of,
    internal_error,
)

if TYPE_CHECKING:
    from sam2_amg.server.front import Front

logger = logging.getLogger(__name__)
_LARGEST_HEAD = 32 << 10  # bytes of a request line with its headers, or of a chunk's header
_MOST_HEADERS = 100
_LARGEST_PIPELINE = 64 << 10  # bytes read ahead while a request is being answered
_WRITE_SIZE = 256 << 10  # bytes written at a time
_EVENTS = 500  # events of h11 that are handled before other connections have their turn
_JOINED = 16 << 10  # bytes
_TINY, _MOST_TINY = 64, 10_000  # a body of more parts than this must have so many bytes a part
_IDLE = 30.0  # seconds in which a client may send nothing between requests
_HEAD = 10.0  # seconds in which a head must arrive
_STALLED = 10.0  # seconds in which a client may send none of a body that it has begun
_LINGER = 5.0  # seconds in which a refused client may send the rest of its body, which is thrown away
_END_OF_HEAD = re.compile(rb"\n\r?\n")


class State(Enum):
    """What the connection waits for."""

    IDLE = "a request"
    RECEIVING = "the rest of a request"
    ANSWERING = "its answer"
    SENDING = "the client to read its answer"
    CLOSING = "the client's end, or a few seconds"


class Connection(asyncio.Protocol):
    """Answers one request at a time. What comes meanwhile is kept, up to a limit, to notice clients that leave."""

    transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self.front = front
        self.state = State.IDLE
        self.since = front.now()  # when it came into its state, or last made progress in it
        self.client = ""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._inbox = bytearray()  # received, and not yet given to h11
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._then: Callable[[], None] | None = None  # what happens when it is due
        self._first_byte = 0.0  # of the request
        self._method = ""
        self._head: Head | None = None
        self._refusal: Answer | None = None  # of a request without a body
        self._body: list[bytes | bytearray] = []  # in parts of at least _JOINED bytes, but the last
        self._parts = 0  # in which the body came
        self._largest_body = 0  # bytes
        self._held = 0  # bytes of the budget
        self._discarded = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone: Callable[[], object] | None = None  # called if the client leaves before its answer is made

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)  # writing pauses until the system has taken every byte
        self.client = str((transport.get_extra_info("peername") or ("",))[0])
        self.front.add(self)
        self._wait(_IDLE, self.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or was sent away."""
        self.front.remove(self)
        self._stop_timer()
        if self._timer is not None:
            self._timer.cancel()
        self._inbox.clear()
        self._body.clear()
        self._writable.set()
        self._release()
        if self._gone is not None:
            self._gone()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.state is State.CLOSING:
            self._discarded += len(data)
            if self._discarded > self.front.largest_discard:
                self.give_up()
            return
        if self.state is State.RECEIVING and not self._inbox and self._h11.their_state is h11.SEND_BODY:
            self._h11.receive_data(data)  # as most of a body comes: a copy less
        else:
            self._inbox += data
        if len(self._inbox) > _LARGEST_PIPELINE and self.state is not State.RECEIVING:
            self.transport.pause_reading()
        if self.state is State.IDLE:
            self._begin_receiving()
        if self.state is State.RECEIVING:
            self._read_on()

    def eof_received(self) -> None:
        """The client sends nothing more; like other servers, this one takes it to have left."""

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client has read on."""
        self._writable.set()

    # Receiving.

    def _begin_receiving(self) -> None:
        self._enter(State.RECEIVING)
        self._first_byte = self.since
        self._wait(min(_HEAD, self.front.limits.receive_timeout), self._too_slow)

    def _read_on(self) -> None:
        """Takes what has come of a request so far, a part of it at a time."""
        if self.state is not State.RECEIVING or self.transport.is_closing():  # h11 may still have parts of a body
            return
        try:
            if self._feed():
                self._take_events()
        except h11.RemoteProtocolError as error:
            self._refuse(bad_request(str(error), error.error_status_hint))
        except RequestError as error:
            self._refuse(error)
        except Exception as error:
            logger.exception("a request could not be read")
            self._refuse(internal_error(error))

    def _feed(self) -> bool:
        """Gives h11 what has come, but of a head nothing before its end. Whether h11 has anything to go on with."""
        if self._h11.their_state is h11.IDLE:
            while self._inbox[:2] in (b"\r\n", b"\n"):  # RFC 9112, section 2.2
                del self._inbox[: 2 if self._inbox[:1] == b"\r" else 1]
            end = _END_OF_HEAD.search(self._inbox, 0, _LARGEST_HEAD)
            if end is None:
                if len(self._inbox) >= _LARGEST_HEAD:
                    raise bad_request(f"the request line and its headers exceed {_LARGEST_HEAD} bytes", 431)
                return False
            if self._inbox.count(b"\n", 0, end.end()) > _MOST_HEADERS:
                raise bad_request(f"the request has more than {_MOST_HEADERS} headers", 431)
            self._h11.receive_data(bytes(self._inbox[: end.end()]))
            del self._inbox[: end.end()]
        elif self._inbox:
            self._h11.receive_data(bytes(self._inbox))
            self._inbox.clear()
        return True

    def _take_events(self) -> None:
        for _ in range(_EVENTS):
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._inbox and self._h11.their_state is h11.SEND_BODY:
                    self._feed()
                    continue
                self.transport.resume_reading()
                return
            if isinstance(event, h11.Request):
                self._take_head(event)
            elif isinstance(event, h11.Data):
                self._take(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._inbox[:0] = self._h11.trailing_data[0]
                self._answer()
            else:  # the connection is at its end
                self.close()
            if self.state is not State.RECEIVING:
                return
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._read_on)  # other connections have their turn first

    def _take_head(self, request: h11.Request) -> None:
        """Decides from the head alone whether the body is worth reading. Raises RequestError."""
        self._method = request.method.decode("latin-1")
        self._head = head_of(request, self.client, self._first_byte)
        refusal = self.front.handler.refuse(self._head)
        if refusal is not None and self._head.has_body:
            self._send_and_close(refusal)
            return
        self._refusal = refusal
        self._largest_body = self.front.handler.largest_body(self._head)
        left = self._first_byte + self.front.limits.receive_timeout - self.front.now()
        self._wait(min(left, _STALLED), self._too_slow)
        if self._h11.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))

    def _take(self, data: bytes | bytearray) -> None:
        """Keeps a part of the body. Raises RequestError 400, 413 or 503."""
        if self._held + len(data) > self._largest_body:
            raise self.front.handler.too_large()
        if not self.front.budget.take(len(data)):
            raise self.front.handler.no_room()
        self._held += len(data)
        if self._body and len(self._body[-1]) < _JOINED:  # a small object takes more memory than its bytes
            self._body[-1] += data
        else:
            self._body.append(data)
        self._parts += 1
        if self._parts > _MOST_TINY and self._held < _TINY * self._parts:
            raise bad_request(f"the body comes in chunks of less than {_TINY} bytes")
        left = self._first_byte + self.front.limits.receive_timeout - self.front.now()
        self._wait(min(left, _STALLED), self._too_slow)

    def _too_slow(self) -> None:
        limits = self.front.limits
        message = (
            f"The request did not arrive: {_HEAD:g} s for its head, {_STALLED:g} s without a byte of its body, or "
            f"{limits.receive_timeout:g} s in all (--receive_timeout). Send it again over a faster connection."
        )
        self._refuse(RequestError(408, "receive_timeout", message))

    def _refuse(self, error: RequestError) -> None:
        self._send_and_close(error_answer(error))

    # Answering.

    def _answer(self) -> None:
        """The request is whole: has it answered."""
        self._stop_timer()
        self._enter(State.ANSWERING)
        self.front.start(self._guard(self._answer_and_send()))

    async def _answer_and_send(self) -> None:
        head, refusal = self._head, self._refusal
        assert head is not None
        if refusal is None:
            try:
                self._gone, pending = self.front.handle(head, self._give_body())
                if self.transport.is_closing():
                    self._gone()
                refusal = await pending
            except RuntimeError as error:  # no thread can be started
                logger.exception("a request could not be handed on")
                refusal = error_answer(internal_error(error))
            if refusal.stream is None:
                self._gone = None
        await self._send(refusal, close=False)

    def _give_body(self) -> bytes:
        """The body, which the connection forgets."""
        parts, self._body = self._body, []
        return b"".join(parts)

    def _send_and_close(self, answer: Answer) -> None:
        self._stop_timer()
        self._body.clear()
        self._enter(State.ANSWERING)
        self.front.start(self._guard(self._send(answer, close=True)))

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Ends the connection if its answer cannot be sent."""
        try:
            await coroutine
        except Exception:
            logger.exception("a connection failed")
            self.give_up()

    async def _send(self, answer: Answer, close: bool) -> None:
        """Writes an answer, as fast as the client reads it, within a deadline."""
        answer = self.front.handler.dress(answer, self._head)
        close, count = close or self.front.is_draining, len(answer.body)
        if answer.stream is not None:
            count = await self._send_stream(answer, answer.stream, close)
        elif not self.transport.is_closing():
            self._release()
            self._enter(State.SENDING)
            self._held = self.front.make_room(count, self)
            self._wait(self.front.limits.send_timeout, self.give_up)
            self._write_head(answer, close)
            await self._write_body(b"" if self._method == "HEAD" else answer.body)
            await self._write_end()
        is_gone = self.transport.is_closing()
        self.front.log(self._head, self.client, answer, count, "the client left" if is_gone else "")
        if not is_gone:
            self._release()
            self._after(close)

    async def _send_stream(self, answer: Answer, stream: Stream, close: bool) -> int:
        """Writes an answer while it is made, and returns the bytes of its body. The request's body stays held.

        The client has the time of an answer for each piece. Nothing is made while it does not read.
        """
        count = 0
        try:
            if not self.transport.is_closing():
                self._write_head(answer, close)
            while not self.transport.is_closing() and self._method != "HEAD":
                self._stop_timer()
                self._enter(State.ANSWERING)
                piece = await self.front.next_piece(stream)
                if piece is None:
                    break
                count += len(piece)
                await self._send_piece(piece)
            if not self.transport.is_closing():
                self._wait(self.front.limits.send_timeout, self.give_up)
                await self._write_end()
        finally:
            self._gone = None
            self.front.end_stream(stream)
        return count

    async def _send_piece(self, piece: bytes) -> None:
        if self.transport.is_closing():
            return
        self._enter(State.SENDING)
        self._wait(self.front.limits.send_timeout, self.give_up)
        room = self.front.make_room(len(piece), self)
        self._held += room
        await self._write_body(piece)
        if not self.transport.is_closing():  # else all is released
            self.front.budget.give(room)
            self._held -= room

    def _write_head(self, answer: Answer, close: bool) -> None:
        own = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        length = len(answer.body)
        if self._method == "HEAD":
            length = next((int(value) for name, value in answer.headers if name.lower() == "content-length"), length)
        if answer.status not in (204, 304) and answer.stream is None:
            own.append(("Content-Length", str(length)))
        own += [("Date", self.front.date()), ("Server", "sam2-amg"), *([("Connection", "close")] if close else [])]
        headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in own]
        self._write(h11.Response(status_code=answer.status, headers=headers, reason=answer.reason))

    async def _write_body(self, body: bytes) -> None:
        for start in range(0, len(body), _WRITE_SIZE):
            self._write(h11.Data(data=body[start : start + _WRITE_SIZE]))
            await self._writable.wait()
            self.since = self.front.now()

    async def _write_end(self) -> None:
        self._write(h11.EndOfMessage())
        await self._writable.wait()

    def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def _after(self, close: bool) -> None:
        """An answer is sent: the next request, or the end."""
        if close or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._linger()
            return
        self._h11.start_next_cycle()
        if self._h11.trailing_data[0]:  # of which there is a copy in the inbox
            self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._head, self._refusal, self._method, self._parts = None, None, "", 0
        self._enter(State.IDLE)
        self._wait(_IDLE, self.close)
        if len(self._inbox) <= _LARGEST_PIPELINE:
            self.transport.resume_reading()
        if self._inbox:
            self._begin_receiving()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _linger(self) -> None:
        """Says that nothing more will come, and reads on for a while: closing at once would reset the connection, and
        the client, which is still sending, would not see its answer."""
        self._inbox.clear()
        self._enter(State.CLOSING)
        self._wait(_LINGER, self.give_up)
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # The end.

    @property
    def is_sending(self) -> bool:
        """Whether the client has not read its answer to the end."""
        return self.state is State.SENDING

    @property
    def is_busy(self) -> bool:
        """Whether a request that is whole has no answer yet, or not all of it."""
        return self.state in (State.ANSWERING, State.SENDING)

    def close(self) -> None:
        """Closes the connection once what was written is sent, or after a few seconds."""
        self._wait(_LINGER, self.give_up)
        self.transport.close()

    def give_up(self) -> None:
        """Ends the connection at once, and releases what it holds."""
        self._stop_timer()
        self.transport.abort()
        self._release()

    def stop_receiving(self, error: RequestError) -> None:
        """Refuses a request that is not whole yet; ends the connection if there is none."""
        if self.state is State.IDLE:
            self.close()
        elif self.state is State.RECEIVING:
            self._refuse(error)

    def _release(self) -> None:
        self.front.budget.give(self._held)
        self._held = 0

    def _enter(self, state: State) -> None:
        self.state, self.since = state, self.front.now()

    # Time. One timer a connection: a later deadline waits for it to fire, and then sets it again.

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._due, self._then = self.front.now() + max(0.0, seconds), then
        loop = asyncio.get_running_loop()
        if self._timer is None or self._timer.when() > loop.time() + seconds:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(max(0.0, seconds), self._tick)

    def _tick(self) -> None:
        self._timer = None
        then, left = self._then, self._due - self.front.now()
        if then is None:
            return
        if left > 0.001:
            self._wait(left, then)
        else:
            self._then = None
            then()

    def _stop_timer(self) -> None:
        self._then = None
