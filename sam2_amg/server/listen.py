"""Sockets and signals of the server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

from sam2_amg.errors import StartupError


def cannot_use(host: str, port: int, error: OSError) -> StartupError:
    """The error for a port that is in use or not permitted."""
    return StartupError(f"--port {port} on {host} cannot be used ({error.strerror}); choose another")


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to host and port, not yet listening. Raises StartupError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise StartupError(f"--host {host} is not an address of this machine ({error}); try 127.0.0.1") from error
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise cannot_use(host, port, error) from error
    return sock


def listening(sock: socket.socket, backlog: int) -> socket.socket:
    """The same socket, listening. Raises StartupError if another server began to listen there since it was bound."""
    host, port = sock.getsockname()[:2]
    try:
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise cannot_use(host, port, error) from error
    return sock


def drain_on_signals(drain: Callable[[], None]) -> None:
    """SIGTERM and Ctrl-C drain the server; a second one ends it at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        drain()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
