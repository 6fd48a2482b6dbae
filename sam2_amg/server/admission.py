"""Decides from a request's head what is refused, and has the Flask application answer the rest."""

from __future__ import annotations

import threading

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError
from sam2_amg.server import wsgi
from sam2_amg.server.access import Access
from sam2_amg.server.engine import Engine
from sam2_amg.server.messages import Answer, Head, error_answer
from sam2_amg.server.ticket import Ticket

UPLOADS = frozenset({"upload", "upload_rle"})  # endpoints that take an image and a place in the queue
_INSTANT = frozenset({"healthz", "readyz"})
_LARGEST_OTHER_BODY = 64 << 10  # bytes that a request without an image may send
_MIB = 1 << 20


class Admission:
    """Answers requests of a `Front` by a Flask application. A body that will be refused is not read."""

    def __init__(self, app: Flask, engine: Engine, limits: Limits, access: Access, address: tuple[str, int]) -> None:
        self.app, self.engine, self.limits, self.access, self.address = app, engine, limits, access, address
        self.largest_body = limits.max_body_mib * _MIB
        self._routes = app.url_map.bind("")

    def refuse(self, head: Head) -> Answer | None:
        """The answer to a request that may not come in, that no route takes, or for which there is no room."""
        try:
            self.access.check(head)
            preflight = self.access.preflight(head)
            if preflight is not None:
                return preflight
            endpoint = self._endpoint(head)
            if endpoint is None:
                return self.answer(head, b"", threading.Event())
            self._check_room(head, endpoint)
        except RequestError as error:
            return error_answer(error)
        return None

    def _check_room(self, head: Head, endpoint: str) -> None:
        """Raises RequestError 413 for too long a body, 503 if the queue is full."""
        largest = self.largest_body if endpoint in UPLOADS else _LARGEST_OTHER_BODY
        if (head.content_length or 0) > largest:
            raise self.too_large()
        if endpoint in UPLOADS:
            self.engine.check_room()

    def _endpoint(self, head: Head) -> str | None:
        """The route's name; None if the application answers 404 or 405."""
        try:
            return self._routes.match(head.path, head.method)[0]
        except (HTTPException, RequestRedirect):
            return None

    def is_instant(self, head: Head) -> bool:
        """Health routes never wait."""
        return self._endpoint(head) in _INSTANT

    def is_work(self, head: Head) -> bool:
        """Uploads wait for the queue."""
        return self._endpoint(head) in UPLOADS

    def answer(self, head: Head, body: bytes, cancelled: threading.Event) -> Answer:
        """The application's answer. The request's ticket is in the WSGI environment."""
        ticket = Ticket(head.request_id, head.received + self.limits.request_timeout, cancelled)
        return wsgi.call(self.app, head, body, {"sam2_amg.ticket": ticket}, self.address)

    def dress(self, answer: Answer, head: Head | None) -> Answer:
        """Adds the headers that every answer has."""
        headers = [*answer.headers, ("X-Content-Type-Options", "nosniff"), *self.access.headers(head)]
        if head is not None:
            headers.append(("X-Request-ID", head.request_id))
        return Answer(answer.status, headers, answer.body)

    def too_large(self) -> RequestError:
        """413: the body exceeds --max_body_mib."""
        return RequestError(413, "body_too_large", over_limit(self.limits))

    def no_room(self) -> RequestError:
        """503: all bodies and answers together exceed --max_held_mib."""
        message = f"Requests under way hold all {self.limits.max_held_mib} MiB (--max_held_mib); try again in 1 s."
        return RequestError(503, "no_room", message, retry_after=1)

    def shutting_down(self) -> RequestError:
        """503: the server is shutting down."""
        return RequestError(503, "shutting_down", "The server is shutting down.", retry_after=5)


def over_limit(limits: Limits) -> str:
    """What is wrong with a body that is too large."""
    return f"The body is over the limit of {limits.max_body_mib} MiB (--max_body_mib)."
