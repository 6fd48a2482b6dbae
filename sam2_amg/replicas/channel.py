"""A TCP connection between the front and a replica, which carries Python values."""

from __future__ import annotations

import hmac
import os
import pickle
import socket
import struct
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from sam2_amg.replicas.messages import Address

INTRODUCTION = 5.0  # seconds to connect, and for each step in which both sides prove that they know the key
# A peer that is gone without a word, with its node or its network, is noticed within 15 s.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 3))
_UNSEEN = 15_000  # milliseconds in which the peer's system must take what is sent


class ChannelLost(Exception):
    """The other side is gone, or does not prove that it knows the key."""


class TimeIsOver(ChannelLost):
    """The other side takes longer than the limit."""


class Channel:
    """One end of the connection. Values are pickled, so a side reads none before the other has proved, by HMAC of a
    random challenge (`multiprocessing.connection`), that it knows the key. Each direction has a key of its own, derived
    of the one that both know, so that no side's proof serves to answer its own challenge.

    `end` may be called from any thread, and ends a `send` or `receive` that waits. Everything else is for one thread at
    a time. Every method but `end` and `close` raises ChannelLost.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Owns the socket from now on."""
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        nodelay = (socket.TCP_NODELAY, 1)  # the end of a value waits for nothing
        for option, value in (nodelay, (socket.TCP_USER_TIMEOUT, _UNSEEN), *_KEEPALIVE):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._socket = sock
        self._connection = Connection(os.dup(sock.fileno()))

    def introduce(self, key: bytes, is_front: bool, seconds: float = INTRODUCTION) -> None:
        """Both sides call this first. Each of its four steps takes `seconds` at most."""
        self.limit(seconds)
        front, replica = (hmac.digest(key, side, "sha256") for side in (b"front", b"replica"))
        try:
            if is_front:
                answer_challenge(self._connection, front)
                deliver_challenge(self._connection, replica)
            else:
                deliver_challenge(self._connection, front)
                answer_challenge(self._connection, replica)
        except (OSError, EOFError, AuthenticationError, AssertionError) as error:
            raise ChannelLost(f"no introduction ({type(error).__name__})") from error
        self.limit(0)

    def limit(self, seconds: float) -> None:
        """How long the other side may take for the next bytes, either way; 0 for any time."""
        timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        try:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, option, timeval)
        except OSError as error:
            raise _lost(error) from error

    def send(self, value: Any) -> None:
        """Sends a value that can be pickled."""
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
        except OSError as error:
            raise _lost(error) from error

    def receive(self) -> Any:
        """The next value."""
        try:
            data = self._connection.recv_bytes()
        except (OSError, EOFError) as error:
            raise _lost(error) from error
        return pickle.loads(data)

    def end(self) -> None:
        """Has both sides find the connection lost."""
        with suppress(OSError):  # it is lost already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends it, and frees what it holds."""
        self.end()
        self._connection.close()
        self._socket.close()


def _lost(error: Exception) -> ChannelLost:
    return TimeIsOver() if isinstance(error, BlockingIOError) else ChannelLost(type(error).__name__)


def connect(address: Address, key: bytes, seconds: float = INTRODUCTION) -> Channel:
    """A connection to a replica that listens; each step takes `seconds` at most. Raises ChannelLost."""
    try:
        channel = Channel(socket.create_connection(address, timeout=seconds))
    except OSError as error:
        raise ChannelLost(type(error).__name__) from error
    try:
        channel.introduce(key, True, seconds)
    except ChannelLost:
        channel.close()
        raise
    return channel
