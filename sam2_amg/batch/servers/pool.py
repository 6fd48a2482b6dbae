"""Several servers: which one is asked next, and which ones are left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from sam2_amg.errors import StartupError

_FIRST_REST, _LONGEST_REST = 0.5, 30.0  # seconds


class NoServerAnswers(StartupError):
    """No server takes images, after all retries. The job ends, and can be started again."""


@dataclass(eq=False)
class RemoteServer:
    """A server, how many images are with it, and until when it is left alone (time.monotonic()). After a setback it may
    be another one at the same address."""

    url: str
    in_flight: int = 0
    failures: int = 0  # connections that failed since the last answer
    rests_until: float = 0.0
    reason: str = ""
    may_be_another: bool = False


class Servers:
    """Lends each server `per_server` times at once, the least busy one first. Safe to use from many threads."""

    def __init__(self, urls: Sequence[str], per_server: int) -> None:
        """Raises StartupError for what is no address of a server."""
        self.all = [RemoteServer(_checked(url)) for url in dict.fromkeys(urls)]
        self._per_server = per_server
        self._changed = threading.Condition()
        self._is_closed = False

    @contextmanager
    def lend(self, avoid: Collection[RemoteServer], deadline: float) -> Iterator[RemoteServer]:
        """A server, those in `avoid` only if there is no other.

        Raises NoServerAnswers if all servers are left alone at `deadline` (time.monotonic()), and after `close`.
        """
        server = self._take(avoid, deadline)
        try:
            yield server
        finally:
            with self._changed:
                server.in_flight -= 1
                self._changed.notify_all()

    def _take(self, avoid: Collection[RemoteServer], deadline: float) -> RemoteServer:
        with self._changed:
            while True:
                self._require_open()
                now = time.monotonic()
                awake = [server for server in self.all if server.rests_until <= now]
                wanted = [server for server in awake if server not in avoid] or awake
                free = [server for server in wanted if server.in_flight < self._per_server]
                if free:
                    server = min(free, key=lambda server: server.in_flight)
                    server.in_flight += 1
                    return server
                if not awake and now >= deadline:
                    raise no_server(self.all)
                soonest = min((s.rests_until for s in self.all if s.rests_until > now), default=now + 60)
                self._changed.wait(min(soonest, deadline if not awake else soonest) - now)

    def has_other(self, avoid: Collection[RemoteServer]) -> bool:
        """Whether there is a server outside `avoid` that may be asked now."""
        now = time.monotonic()
        with self._changed:
            return any(server.rests_until <= now and server not in avoid for server in self.all)

    def answered(self, server: RemoteServer) -> None:
        """Notes that a server works."""
        with self._changed:
            server.failures = 0

    def failed(self, server: RemoteServer, reason: str) -> None:
        """Leaves a server alone, for longer each time that it fails again."""
        with self._changed:
            now = time.monotonic()
            if server.rests_until <= now:  # requests that were under way together fail together
                server.rests_until = now + min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(server.failures, 16))
                server.failures += 1
            server.reason = reason
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Waits. Raises NoServerAnswers after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, max(0.0, seconds))
            self._require_open()

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _require_open(self) -> None:
        if self._is_closed:
            raise NoServerAnswers("the job ends, and asks no server for more")


def no_server(servers: Sequence[RemoteServer]) -> NoServerAnswers:
    """The error that says what each server did last."""
    reasons = "; ".join(f"{server.url}: {server.reason or 'busy'}" for server in servers)
    way = "Start the servers, then the same command again: it goes on where it stopped."
    return NoServerAnswers(f"no server answers ({reasons}). {way}")


def _checked(url: str) -> str:
    """The address without a slash at its end."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        good = None
    if not good:
        raise StartupError(f"--server {url} is no address of a server; give one as http://127.0.0.1:5000")
    return url.rstrip("/")
