"""The replica's side of the connections to the front."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from sam2_amg.replicas.channel import Channel, ChannelLost
from sam2_amg.replicas.messages import Address, Call, Reply
from sam2_amg.server.ticket import Ticket

logger = logging.getLogger(__name__)
_PAUSE = 1.0  # seconds until the next try, if no connection can be accepted
_BACKLOG = 1024  # connections that the system keeps until they are accepted
_STRANGERS = 64  # connections that have not proved yet that they know the key; more are closed


class Listener:
    """Has `answer` make a reply to each call that comes in, in threads of a pool, and cancels the call's ticket when
    its connection is lost. A connection carries one call at a time."""

    def __init__(self, host: str, key: bytes, answer: Callable[[Call, Ticket], Reply], threads: int) -> None:
        """Listens on a free port of this address, until the process ends."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
        self._key, self._answer = key, answer
        self._threads = ThreadPoolExecutor(threads, "answer")
        self._strangers = threading.BoundedSemaphore(_STRANGERS)
        self._in_flight = 0
        self._lock = threading.Lock()
        self.address: Address = self._socket.getsockname()[:2]
        threading.Thread(target=self._accept, name="listen", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """How many calls have no reply yet."""
        return self._in_flight

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError as error:  # the client is gone, or there are too many open files
                logger.warning("A connection cannot be accepted: %s", error)
                time.sleep(_PAUSE)
                continue
            if not self._strangers.acquire(blocking=False):
                sock.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(Channel(sock),), name="connection", daemon=True).start()
            except (OSError, RuntimeError) as error:  # too many open files or threads
                logger.warning("A connection cannot be served: %s", error)
                self._strangers.release()
                sock.close()

    def _serve(self, channel: Channel) -> None:
        ticket, answering = Ticket(), None
        try:
            self._introduce(channel)
            while True:
                call: Call = channel.receive()  # meanwhile the call before is worked on
                ticket = Ticket(time.monotonic() + call.seconds, call.request_id)
                with self._lock:
                    self._in_flight += 1
                answering = self._threads.submit(self._reply, channel, call, ticket)
        except ChannelLost as error:
            logger.debug("A connection is lost: %s", error)
        finally:
            ticket.cancel()  # no change if it is done
            if answering is not None:
                wait([answering])
            channel.close()

    def _introduce(self, channel: Channel) -> None:
        try:
            channel.introduce(self._key, is_front=False)
        finally:
            self._strangers.release()

    def _reply(self, channel: Channel, call: Call, ticket: Ticket) -> None:
        try:
            channel.send(self._answer(call, ticket))
        except ChannelLost:
            logger.debug("Nobody waits for the answer to request %s", call.request_id)
        except Exception:  # too little memory, say: the front is to hear of it
            logger.exception("request %s has no answer that can be sent", call.request_id)
            channel.end()
        finally:
            with self._lock:
                self._in_flight -= 1
