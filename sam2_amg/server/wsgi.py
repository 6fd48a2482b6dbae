"""Waitress, set up for this server: JSON errors, immediate refusal when overloaded, and a draining shutdown."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from types import FrameType

import orjson
from flask import Flask
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import BadRequest
from waitress.wasyncore import close_all

from sam2_amg.config import Limits
from sam2_amg.errors import StartupError
from sam2_amg.server.app import error_body, over_limit

logger = logging.getLogger(__name__)
_SPARE_THREADS = 8  # threads beyond one per queue slot: they refuse requests and serve /healthz
_CONNECTIONS = 1000
# The application refuses a body over the limit after reading it to its end, so that the client receives the error.
# Waitress stops reading a body of more than this many times the limit.
_READ_OVER_LIMIT = 4
_STALLED = 10.0  # seconds without a byte read by a client, after which a draining server stops waiting for it


class _JsonErrorTask(ErrorTask):
    """Errors that waitress raises before the application runs (malformed or far too large requests), as JSON."""

    def execute(self) -> None:
        error = self.request.error
        code = "body_too_large" if error.code == 413 else error.reason.lower().replace(" ", "_")
        if error.code == 413:  # waitress's own text names the size at which it stops reading, not the limit
            message = over_limit(self.channel.server.limits)
        else:
            message = f"{error.reason}: {str(error.body).strip().rstrip('.')}."
        body = orjson.dumps(error_body(code, message), option=orjson.OPT_APPEND_NEWLINE)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    error_task_class = _JsonErrorTask

    def readable(self) -> bool:
        return not self.server.draining and super().readable()

    def received(self, data: bytes) -> bool:
        """Parses received bytes. Some malformed targets (http://[x/) raise ValueError in waitress; they get a 400."""
        try:
            return super().received(data)
        except ValueError as error:
            request = self.parser_class(self.adj)
            request.error = BadRequest(str(error))
            request.completed = True
            with self.requests_lock:
                self.request = None
                self.requests.append(request)
                if len(self.requests) == 1:
                    self.server.add_task(self)
            return True

    @property
    def is_busy(self) -> bool:
        """Whether a complete request awaits its response, or a client is still reading one."""
        if self.total_outbufs_len and time.time() - self.last_activity > _STALLED:
            return False
        return bool(self.requests or self.total_outbufs_len)


class Server(TcpWSGIServer):
    """A WSGI server on a bound socket. `run()` returns after `drain()`, once every request read by then is answered."""

    channel_class = _Channel
    draining = False

    def __init__(self, app: Flask, sock: socket.socket, limits: Limits) -> None:
        self.limits = limits
        adjustments = Adjustments(
            sockets=[sock],
            threads=limits.queue_size + _SPARE_THREADS,
            connection_limit=_CONNECTIONS,
            max_request_body_size=_READ_OVER_LIMIT * (limits.max_body_mib << 20),
            ident="sam2-amg",
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(adjustments.threads)
        sockinfo = (sock.family, sock.type, sock.proto, sock.getsockname())
        channels: dict = {}
        try:
            super().__init__(
                app, channels, True, sock, dispatcher=dispatcher, adj=adjustments, bind_socket=False, sockinfo=sockinfo
            )
        except OSError as error:  # another server began to listen on the port after `bind`
            dispatcher.shutdown()
            close_all(channels)
            raise cannot_use(sockinfo[3][0], sockinfo[3][1], error) from error

    def readable(self) -> bool:
        """Called by waitress's loop at least once a second. Leaves the loop once the server is drained."""
        if self.draining and not any(channel.is_busy for channel in self.active_channels.values()):
            raise SystemExit
        return super().readable()

    def drain(self) -> None:
        """Stops accepting connections and reading requests."""
        logger.info("stopping after the accepted requests are answered; a second signal stops at once")
        self.draining = True
        self.accepting = False
        with contextlib.suppress(OSError):  # if a listening socket cannot be shut down, `run` closes it at the end
            self.socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serves until drained."""
        super().run()
        close_all(self._map)


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


def drain_on_signals(server: Server) -> None:
    """SIGTERM and Ctrl-C drain the server; a second signal ends the process at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        server.drain()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
