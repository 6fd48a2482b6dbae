"""Who may ask: an API key, and, while only this machine can connect, no pages of foreign sites."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from sam2_amg.errors import RequestError, StartupError
from sam2_amg.server.messages import Answer, Head

_FREE = frozenset({"/healthz", "/readyz", "/"})  # supervisors and browsers ask without a key
_FREE_BELOW = "/page/"  # files of the page, which asks for the key
_SAFE_HEADERS = (("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"))
_SHORTEST_KEY = 16  # characters
_HOSTS = 64  # Host headers that are remembered; nearly all requests have the same


@dataclass(frozen=True)
class Access:
    """`api_key` is the bearer token that requests need, if any. `cors_origin` is the origin whose pages may ask, if any
    ("*" for all). If the server listens on a loopback address (`is_loopback`), Host must name this machine, so that a
    foreign name that resolves to it (DNS rebinding) is refused.
    """

    api_key: str | None = None
    cors_origin: str | None = None
    is_loopback: bool = False

    def check(self, head: Head) -> None:
        """Raises RequestError 403 for a foreign Host or Origin, 401 for a missing or wrong key."""
        host, origin = head.get("host") or "", head.get("origin")
        if self.is_loopback and host and not _is_local(host):
            message = f"Host {host!r} is no name of this machine. Ask for localhost or 127.0.0.1."
            raise RequestError(403, "foreign_host", message)
        if origin is not None and self.is_loopback and not self._may_ask(origin, host):
            message = f"Pages of {origin} may not ask this server. Start it with --cors_origin {origin} to allow them."
            raise RequestError(403, "foreign_origin", message)
        if self.api_key is not None and not _is_free(head.path) and not _is_preflight(head):
            self._check_key(head.get("authorization") or "")

    def _check_key(self, authorization: str) -> None:
        scheme, _, given = authorization.partition(" ")
        known = (self.api_key or "").encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), known):
            message = "This server needs a key: send the header Authorization: Bearer KEY (--api_key_file)."
            raise RequestError(401, "unauthorized", message)

    def _may_ask(self, origin: str, host: str) -> bool:
        try:
            return self.cors_origin in ("*", origin) or urlsplit(origin).netloc == host
        except ValueError:
            return False

    def preflight(self, head: Head) -> Answer | None:
        """The answer to a browser that asks before a request to a foreign origin, if `cors_origin` allows it."""
        if not _is_preflight(head) or not self._allowed_origin(head):
            return None
        headers = [
            ("Access-Control-Allow-Methods", "GET, POST, DELETE"),
            ("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-ID"),
            ("Access-Control-Max-Age", "600"),
        ]
        return Answer(204, headers, b"")

    def headers(self, head: Head | None) -> list[tuple[str, str]]:
        """Headers that tell browsers what they may do with an answer."""
        headers = list(_SAFE_HEADERS)
        if head is not None and (origin := self._allowed_origin(head)):
            headers += [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
            headers += [("Access-Control-Expose-Headers", "X-Request-ID, Server-Timing, Retry-After")]
        return headers

    def _allowed_origin(self, head: Head) -> str | None:
        origin = head.get("origin")
        return origin if origin is not None and self.cors_origin in ("*", origin) else None


def _is_free(path: str) -> bool:
    """Whether a path is answered without a key."""
    return path in _FREE or path.startswith(_FREE_BELOW)


def _is_preflight(head: Head) -> bool:
    """Whether a browser asks if a page may send a request; it sends no key with that."""
    names = ("origin", "access-control-request-method")
    return head.method == "OPTIONS" and not head.has_body and all(head.get(name) is not None for name in names)


@lru_cache(_HOSTS)
def _is_local(host: str) -> bool:
    """Whether a Host header names this machine: localhost, *.localhost or a loopback address, with any port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether this is the number of a loopback address."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_key(path: Path) -> str:
    """The key in a file: its first line, without spaces around it. Raises StartupError."""
    try:
        key = path.read_text().split("\n", 1)[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"--api_key_file {path} cannot be read ({error}); give a text file with the key") from error
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        need = f"a first line of at least {_SHORTEST_KEY} printable ASCII characters"
        raise StartupError(f"--api_key_file {path} needs {need}; make one with: openssl rand -hex 32 > {path}")
    return key
