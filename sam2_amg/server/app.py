"""The HTTP interface: routes, and errors as JSON."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from flask import Flask, Response, request
from numpy.typing import NDArray
from werkzeug.exceptions import HTTPException

from sam2_amg.answers.options import Answer
from sam2_amg.answers.render import render
from sam2_amg.config import Limits, ServerConfig
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.server.desk import Desk
from sam2_amg.server.jobs import cancelled, timed_out
from sam2_amg.server.messages import error_answer, error_body, internal_error
from sam2_amg.server.parameters import parameters_of
from sam2_amg.server.replies import json_line, response_of
from sam2_amg.server.status import register_status
from sam2_amg.server.ticket import TICKET, Ticket
from sam2_amg.server.upload import only_upload, uploads_of

logger = logging.getLogger(__name__)


def ticket_of_request(limits: Limits) -> Ticket:
    """The ticket that came with the request, or a new one."""
    return request.environ.setdefault(TICKET, Ticket(time.monotonic() + limits.request_timeout))


@contextmanager
def in_turn(lock: threading.Lock, ticket: Ticket, limits: Limits) -> Iterator[None]:
    """Holds a lock. Raises RequestError timeout (504) if the request's time ends before it is its turn."""
    if not lock.acquire(timeout=min(ticket.remaining, threading.TIMEOUT_MAX)):
        raise timed_out(limits.request_timeout)
    try:
        yield
    finally:
        lock.release()


def rendered(answer: Answer) -> Response:
    """The response that carries an answer."""
    return Response(answer.data, mimetype=answer.mimetype)


def create_app(config: ServerConfig, desk: Desk) -> Flask:
    """The Flask application. The desk's engine makes the masks."""
    engine = desk.engine
    app = Flask(__name__, static_folder=None)
    rendering = threading.Lock()  # one overlay at a time, because each takes several times its image's memory

    @contextmanager
    def segmented() -> Iterator[tuple[NDArray[np.uint8], list[MaskRecord]]]:
        """The request's image, uint8 RGB [H, W, 3], and its masks. Memory for both is held until the end."""
        ticket = ticket_of_request(config.limits)
        if not ticket.enter("decoding"):
            raise cancelled()
        stretch = parameters_of(request.args).stretch
        with engine.slot():
            data = only_upload(uploads_of(request)).data
            deadline = min(time.monotonic() + config.limits.decode_timeout, ticket.deadline)
            with desk.decoders.decoded(data, deadline, stretch) as image:
                records = engine.generate(image, ticket)
                desk.metrics.segmented(len(records))
                yield image, records

    @app.post("/upload")
    def upload() -> Response:
        with segmented() as (image, records), in_turn(rendering, ticket_of_request(config.limits), config.limits):
            return rendered(render("png", records, image.shape[:2], image=image))

    @app.post("/upload_rle")
    def upload_rle() -> Response:
        with segmented() as (image, records):
            return rendered(render("rle", records, image.shape[:2]))

    register_status(app, config, desk)
    register_errors(app)
    return app


def register_errors(app: Flask) -> None:
    """Registers handlers that turn every exception into a JSON response."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return response_of(error_answer(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        code, message = _describe_http_error(error)
        response = json_line(error_body(code, message), error.code or 500)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
        return response_of(error_answer(internal_error(error)))


def _describe_http_error(error: HTTPException) -> tuple[str, str]:
    match error.code:
        case 404:
            paths = (
                "POST /upload, POST /upload_rle, GET /healthz, GET /readyz, GET /info, GET /metrics, GET /requests/ID"
            )
            return "not_found", f"{request.path} does not exist. Use one of: {paths}."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            return "method_not_allowed", f"{request.path} does not support {request.method}; use {allowed}."
    return error.name.lower().replace(" ", "_"), error.description or error.name
