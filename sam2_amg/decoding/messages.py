"""What a server and its decoders say to each other: JSON in datagrams, which arrive whole or not at all."""

from __future__ import annotations

import json
import socket
from typing import Any

_MOST = 1 << 16  # bytes
_MOST_TEXT = 1_000  # characters of an error's message

Message = dict[str, Any]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that keeps the bounds of messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message) -> None:
    """Sends a message. Raises OSError where nobody is there."""
    sock.send(json.dumps(message).encode())


def receive(sock: socket.socket) -> Message | None:
    """The next message; None where the other side is gone. Raises TimeoutError as the socket does."""
    data = sock.recv(_MOST)
    return json.loads(data) if data else None


def error_message(status: int, code: str, text: str) -> Message:
    """A refusal."""
    return {"error": [status, code, text[:_MOST_TEXT]]}
