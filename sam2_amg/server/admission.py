"""Decides from a request's head what is refused, and has the Flask application answer the rest."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from sam2_amg.config import Bounds, Limits
from sam2_amg.errors import RequestError, shutting_down
from sam2_amg.parameters import schemas
from sam2_amg.server import wsgi
from sam2_amg.server.access import Access
from sam2_amg.server.desk import Desk
from sam2_amg.server.messages import Answer, Head, error_answer
from sam2_amg.server.parameters import FORMATS, model_of, parameters_of
from sam2_amg.server.ticket import TICKET, Ticket, stages_of

UPLOADS = frozenset(FORMATS)  # endpoints that take images and places in the queue
_INSTANT = frozenset({"healthz", "readyz"})
_LARGEST_OTHER_BODY = 64 << 10  # bytes that a request without an image may send
_KNOWN = 256  # paths whose routes are remembered
_MIB = 1 << 20
_BOUNDS = Bounds()


class Admission:
    """Answers requests of a `Front` by a Flask application. A body that will be refused is not read."""

    def __init__(
        self,
        app: Flask,
        desk: Desk,
        limits: Limits,
        access: Access,
        address: tuple[str, int],
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self.app, self.limits, self.access, self.address, self.bounds = app, limits, access, address, bounds
        self.engine, self.metrics, self.tickets = desk.engine, desk.metrics, desk.tickets
        for endpoint in UPLOADS:
            schemas(model_of(endpoint, bounds))  # which takes milliseconds, the first time
        self._routes = app.url_map.bind("")
        self._match = lru_cache(_KNOWN)(self._match_route)  # asked several times for each request

    def refuse(self, head: Head) -> Answer | None:
        """The answer to a request that may not come in, that no route takes, or for which there is no room."""
        try:
            self.access.check(head)
            preflight = self.access.preflight(head)
            if preflight is not None:
                return preflight
            endpoint = self._endpoint(head)
            if endpoint is None:
                return self.answer(head, b"", self.open(head))
            self._check_room(head, endpoint)
        except RequestError as error:
            return error_answer(error)
        return None

    def _check_room(self, head: Head, endpoint: str) -> None:
        """Raises RequestError 400 for the query, 413 for too long a body, 503 if the queue is full."""
        if (head.content_length or 0) > self.largest_body(head):
            raise self.too_large()
        if endpoint in UPLOADS:
            parameters_of(head.query, model_of(endpoint, self.bounds))
            known = self.tickets.get(head.request_id)
            if known is not None and not known.is_over:
                raise _in_use(head)
            self.engine.check_room()

    def largest_body(self, head: Head) -> int:
        """Bytes: what --max_body_mib says for an image, and little for other requests."""
        is_upload = head.method == "POST" and self.is_work(head)
        return self.limits.max_body_mib * _MIB if is_upload else _LARGEST_OTHER_BODY

    def _endpoint(self, head: Head) -> str | None:
        """The route's name; None if the application answers 404 or 405."""
        return self._match(head.path, head.method)

    def _match_route(self, path: str, method: str) -> str | None:
        try:
            return self._routes.match(path, method)[0]
        except (HTTPException, RequestRedirect):
            return None

    def is_instant(self, head: Head) -> bool:
        """Health routes never wait."""
        return self._endpoint(head) in _INSTANT

    def is_work(self, head: Head) -> bool:
        """Uploads wait for the queue."""
        return self._endpoint(head) in UPLOADS

    def open(self, head: Head) -> Ticket:
        """A ticket for a request that is whole; its deadline counts from the request's first byte."""
        ticket = Ticket(head.received + self.limits.request_timeout, head.request_id)
        if self.is_work(head):
            self.tickets.add(ticket)
        return ticket

    def answer(self, head: Head, body: bytes, ticket: Ticket) -> Answer:
        """The application's answer. The request's ticket is in the WSGI environment."""
        is_known = not self.is_work(head) or ticket.is_over or self.tickets.get(head.request_id) is ticket
        if not is_known and not self.tickets.add(ticket):  # another one's body came at the same time
            return error_answer(_in_use(head))
        answer = wsgi.call(self.app, head, body, {TICKET: ticket}, self.address)
        if answer.stream is not None:
            return answer  # its ticket is done when the stream is at its end
        ticket.enter("done")
        stages = stages_of(ticket, head.received)
        if self.is_work(head):
            self.metrics.took(stages)
        timing = ", ".join(f"{name};dur={seconds * 1e3:.1f}" for name, seconds in stages)
        return replace(answer, headers=[*answer.headers, ("Server-Timing", timing)])

    def sent(self, head: Head | None, answer: Answer, seconds: float) -> None:
        """Counts an answer that was sent, or given up."""
        endpoint = None if head is None else self._endpoint(head)
        self.metrics.answered(endpoint or "none", answer.status, seconds)

    def dress(self, answer: Answer, head: Head | None) -> Answer:
        """Adds the headers that every answer has."""
        headers = [*answer.headers, ("X-Content-Type-Options", "nosniff"), *self.access.headers(head)]
        if head is not None:
            headers.append(("X-Request-ID", head.request_id))
        return replace(answer, headers=headers)

    def too_large(self) -> RequestError:
        """413: the body exceeds --max_body_mib."""
        return RequestError(413, "body_too_large", over_limit(self.limits))

    def no_room(self) -> RequestError:
        """503: all bodies and answers together exceed --max_held_mib."""
        message = f"Requests under way hold all {self.limits.max_held_mib} MiB (--max_held_mib); try again in 1 s."
        return RequestError(503, "no_room", message, retry_after=1)

    def shutting_down(self) -> RequestError:
        """503: the server is shutting down."""
        return shutting_down()


def _in_use(head: Head) -> RequestError:
    message = f"A request with X-Request-ID {head.request_id} is under way; send another ID."
    return RequestError(409, "request_id_in_use", message)


def over_limit(limits: Limits) -> str:
    """What is wrong with a body that is too large."""
    return f"The body is over the limit of {limits.max_body_mib} MiB (--max_body_mib)."
