"""Waitress, set up for this server: errors of its own as JSON, overload refused at once, and a shutdown that drains."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import orjson
from flask import Flask
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.wasyncore import close_all

from sam2_amg.config import Limits
from sam2_amg.errors import StartupError
from sam2_amg.http import error_body

_SPARE_THREADS = 8  # beyond one for every place in the queue: they refuse, and answer /healthz
_CONNECTIONS = 1000
# A body a little over the limit is read to its end and then refused by the application, so that the client, which
# sends before it listens, gets to see why. One this many times over is cut off.
_READ_OVER_LIMIT = 4


class _JsonErrorTask(ErrorTask):
    """What waitress refuses by itself (malformed requests, far too large ones), as JSON."""

    def execute(self) -> None:
        error = self.request.error
        code = "body_too_large" if error.code == 413 else error.reason.lower().replace(" ", "_")
        body = orjson.dumps(error_body(code, f"{error.reason}: {error.body}."), option=orjson.OPT_APPEND_NEWLINE)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _JsonErrorTask

    def readable(self) -> bool:
        return not self.server.draining and super().readable()

    @property
    def is_busy(self) -> bool:
        """Whether a request that was read whole is not yet answered, to the last byte."""
        return bool(self.requests or self.total_outbufs_len)


class Server(TcpWSGIServer):
    """A production WSGI server on a socket that is already bound. `run()` returns once `drain()` has been called and
    every request that was read by then is answered."""

    channel_class = _Channel
    draining = False

    def __init__(self, app: Flask, sock: socket.socket, limits: Limits) -> None:
        adjustments = Adjustments(
            sockets=[sock],
            threads=limits.queue_size + _SPARE_THREADS,
            connection_limit=_CONNECTIONS,
            max_request_body_size=_READ_OVER_LIMIT * (limits.max_body_mib << 20),
            ident="sam2-amg",
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(adjustments.threads)
        super().__init__(
            app,
            {},
            True,
            sock,
            dispatcher=dispatcher,
            adj=adjustments,
            bind_socket=False,
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
        )

    def readable(self) -> bool:
        """Asked by the loop at least once a second; where the loop is left, too."""
        if self.draining and not any(channel.is_busy for channel in self.active_channels.values()):
            raise SystemExit
        return super().readable()

    def drain(self) -> None:
        """Accepts and reads nothing more."""
        self.draining = True
        self.accepting = False

    def run(self) -> None:
        """Serves until drained."""
        super().run()
        close_all(self._map)


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to host and port, not yet listening. Raises StartupError that names the flag."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartupError(f"--host {host} is no address of this machine ({error}); try 127.0.0.1") from error
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise StartupError(f"--port {port} on {host} cannot be used ({error.strerror}); choose another") from error
    return sock


def drain_on_signals(server: Server) -> None:
    """SIGTERM and Ctrl-C drain the server; a second one ends it at once."""

    def stop(number: int, _: FrameType | None) -> None:
        server.drain()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
