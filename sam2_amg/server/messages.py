"""A request and an answer of HTTP/1.1, and what makes a request's framing unambiguous."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote_to_bytes, urlsplit

import h11

from sam2_amg.answers.json_line import json_line
from sam2_amg.errors import RequestError

VERSIONS = (b"1.0", b"1.1")
_REQUEST_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Head:
    """The request line and the headers. `path` is percent-decoded, in WSGI's latin-1; header names are lower-case."""

    method: str
    path: str
    query: str
    version: str
    headers: Sequence[tuple[str, str]]
    client: str = ""
    received: float = field(default_factory=time.monotonic)  # when the request's first byte came
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def get(self, name: str) -> str | None:
        """The first header of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def content_length(self) -> int | None:
        """Bytes of the body, if the client says."""
        value = self.get("content-length")
        return None if value is None else int(value)

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return bool(self.content_length) or self.get("transfer-encoding") is not None


class Stream(Protocol):
    """The pieces of a body, made one by one, each in whatever thread. `close` is called in any case, once."""

    def __next__(self) -> bytes:
        """The next piece; may wait."""
        ...

    def close(self) -> None:
        """Nobody asks for more."""
        ...


@dataclass(frozen=True)
class Answer:
    """A response. Content-Length, Date and Connection are added when it is sent.

    With a `stream` the body comes from it, in chunks, a piece when the client has taken the one before.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    stream: Stream | None = None

    @property
    def reason(self) -> str:
        """The words after the status."""
        return HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else ""


def json_answer(value: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """One line of JSON."""
    return Answer(status, [("Content-Type", "application/json"), *headers], json_line(value))


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The body of every error."""
    return {"error": {"code": code, "message": message}}


def error_answer(error: RequestError) -> Answer:
    """The answer that an error becomes."""
    headers = [] if error.retry_after is None else [("Retry-After", str(error.retry_after))]
    return json_answer(error_body(error.code, error.message), error.status, headers)


def internal_error(error: BaseException) -> RequestError:
    """500: a bug, or the system refused something."""
    message = f"The server failed on this request ({type(error).__name__}); its log has the traceback."
    return RequestError(500, "internal_error", message)


def bad_request(why: str, status: int = 400) -> RequestError:
    """The error of a message that is not HTTP/1.1 as this server reads it."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_")
    return RequestError(status, code, f"{phrase}: {why.rstrip('.')}.")


def head_of(request: h11.Request, client: str, received: float) -> Head:
    """The head of a request. Raises RequestError 400 if its framing can be read in two ways, or its target in none.

    h11 has refused several Host headers, several different Content-Lengths, and codings other than chunked.
    """
    if request.http_version not in VERSIONS:
        raise bad_request(f"HTTP/{request.http_version.decode()} is not spoken here; use HTTP/1.1")
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise bad_request("Content-Length and Transfer-Encoding contradict each other; send one of them")
        if request.http_version == b"1.0":
            raise bad_request("HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    path, query = _split(request.target)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    head = Head(request.method.decode(), path, query, request.http_version.decode(), headers, client, received)
    given = head.get("x-request-id") or ""
    return replace(head, request_id=given) if _REQUEST_ID.fullmatch(given) else head


def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a request's target, in origin form (/info?x) or absolute form (http://host/info?x)."""
    text = target.decode("latin-1")
    try:
        parts = urlsplit(text if "://" in text.split("?", 1)[0] else f"http://host{text}")
    except ValueError as error:
        raise bad_request(f"the target of the request cannot be read ({error})") from error
    if not (text.startswith("/") or "://" in text or text == "*"):
        raise bad_request("the target of the request is no path")
    path = "/" + parts.path.lstrip("/")  # as //info is meant
    return unquote_to_bytes(path).decode("latin-1"), parts.query
