"""One client's connection: bytes -> requests -> answers, each step with a deadline.

h11 reads and writes HTTP/1.1. This file adds what h11 leaves to a server: time, memory, and refusing early.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import h11

from sam2_amg.errors import RequestError
from sam2_amg.server.messages import Answer, Head, bad_request, error_answer, head_of

if TYPE_CHECKING:
    from sam2_amg.server.front import Front

logger = logging.getLogger(__name__)
_LARGEST_HEAD = 32 << 10  # bytes of a request line with its headers, or of a chunk's header
_LARGEST_PIPELINE = 64 << 10  # bytes read ahead while a request is being answered
_WRITE_SIZE = 256 << 10  # bytes written at a time
_IDLE = 30.0  # seconds in which a client may send nothing between requests
_STALLED = 10.0  # seconds in which a client may send none of a body that it has begun
_LINGER = 5.0  # seconds in which a refused client may send the rest of its body, which is thrown away


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
        self.since = front.now()  # when it came into its state
        self.client = ""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._timer: asyncio.TimerHandle | None = None
        self._head: Head | None = None
        self._body: list[bytes] = []
        self._held = 0  # bytes of the budget
        self._discarded = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
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
        self._writable.set()
        self._release()
        if self._gone is not None:
            self._gone()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.state is State.CLOSING:
            self._discarded += len(data)
            if self._discarded > self.front.largest_discard:
                self.transport.abort()
            return
        try:
            self._h11.receive_data(data)
        except RuntimeError:  # after its last request
            return
        if self.state in (State.ANSWERING, State.SENDING):
            if len(self._h11.trailing_data[0]) > _LARGEST_PIPELINE:
                self.transport.pause_reading()
            return
        if self.state is State.IDLE:
            self._begin_receiving()
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
        self._wait(self.front.limits.receive_timeout, self._too_slow)

    def _read_on(self) -> None:
        """Takes what h11 has made of the bytes so far."""
        try:
            while self.state is State.RECEIVING:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Request):
                    self._take_head(event)
                elif isinstance(event, h11.Data):
                    self._take(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self._answer()
                else:  # the connection is at its end
                    self.close()
                    return
        except h11.RemoteProtocolError as error:
            self._refuse(bad_request(str(error), error.error_status_hint))
        except RequestError as error:
            self._refuse(error)

    def _take_head(self, request: h11.Request) -> None:
        """Decides from the head alone whether the body is worth reading. Raises RequestError."""
        self._head = head_of(request, self.client, self.since)
        refusal = self.front.handler.refuse(self._head)
        if refusal is not None:
            self._send_and_close(refusal)
        elif self._h11.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))

    def _take(self, data: bytes) -> None:
        """Keeps a part of the body. Raises RequestError 413 or 503."""
        if self._held + len(data) > self.front.handler.largest_body:
            raise self.front.handler.too_large()
        if not self.front.budget.take(len(data)):
            raise self.front.handler.no_room()
        self._held += len(data)
        self._body.append(data)
        left = self.since + self.front.limits.receive_timeout - self.front.now()
        self._wait(min(left, _STALLED), self._too_slow)

    def _too_slow(self) -> None:
        limits = self.front.limits
        message = (
            f"The request did not arrive: {_STALLED:g} s without a byte of its body, or {limits.receive_timeout:g} s "
            "in all (--receive_timeout). Send it again over a faster connection."
        )
        self._refuse(RequestError(408, "receive_timeout", message))

    def _refuse(self, error: RequestError) -> None:
        if self._head is None and not self._h11.trailing_data[0] and self._h11.their_state is h11.IDLE:
            self.close()  # not a byte of a request
            return
        self._send_and_close(error_answer(error))

    # Answering.

    def _answer(self) -> None:
        """The request is whole: has it answered."""
        assert self._head is not None
        head, body = self._head, b"".join(self._body)
        self._body.clear()
        self._stop_timer()
        self._enter(State.ANSWERING)
        self._task = self.front.start(self._answer_and_send(head, body))

    async def _answer_and_send(self, head: Head, body: bytes) -> None:
        self._gone, pending = self.front.handle(head, body)
        answer = await pending
        self._gone = None
        await self._send(answer, head)

    def _send_and_close(self, answer: Answer) -> None:
        self._body.clear()
        self._enter(State.ANSWERING)
        self._task = self.front.start(self._send(answer, self._head, close=True))

    async def _send(self, answer: Answer, head: Head | None, close: bool = False) -> None:
        """Writes an answer, as fast as the client reads it, within a deadline."""
        answer = self.front.handler.dress(answer, head)
        if not self.transport.is_closing():
            self._release()
            self._enter(State.SENDING)
            self._held = self.front.make_room(len(answer.body))
            self._wait(self.front.limits.send_timeout, self.give_up)
            close = close or self.front.is_draining
            self._write_head(answer, close)
            if head is None or head.method != "HEAD":
                await self._write_body(answer.body)
            self._write(h11.EndOfMessage())
        self.front.log(head, self.client, answer, "the client left" if self.transport.is_closing() else "")
        if not self.transport.is_closing():
            self._release()
            self._after(close)

    async def _write_body(self, body: bytes) -> None:
        for start in range(0, len(body), _WRITE_SIZE):
            self._write(h11.Data(data=body[start : start + _WRITE_SIZE]))
            await self._writable.wait()

    def _write_head(self, answer: Answer, close: bool) -> None:
        headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        headers += [("Content-Length", str(len(answer.body))), ("Date", self.front.date()), ("Server", "sam2-amg")]
        if close:
            headers.append(("Connection", "close"))
        self._write(h11.Response(status_code=answer.status, headers=headers, reason=answer.reason))

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
        self._head = None
        self._enter(State.IDLE)
        self._wait(_IDLE, self.close)
        self.transport.resume_reading()
        if self._h11.trailing_data[0]:
            self._begin_receiving()
            self._read_on()

    def _linger(self) -> None:
        """Says that nothing more will come, and reads on for a while: closing at once would reset the connection, and
        the client, which is still sending, would not see its answer."""
        self._enter(State.CLOSING)
        self._wait(_LINGER, self.give_up)
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # The end.

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self.state is State.IDLE

    @property
    def is_sending(self) -> bool:
        """Whether the client has not read its answer to the end."""
        return self.state is State.SENDING

    @property
    def is_busy(self) -> bool:
        """Whether a request that is whole has no answer yet, or not all of it."""
        return self.state in (State.ANSWERING, State.SENDING)

    def close(self) -> None:
        """Closes the connection once what was written is sent."""
        self._stop_timer()
        self.transport.close()

    def give_up(self) -> None:
        """Ends the connection at once, and releases what it holds."""
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

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
