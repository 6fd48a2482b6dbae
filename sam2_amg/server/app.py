"""The HTTP interface: routes, and errors as JSON."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from sam2_amg.answers.options import Answer
from sam2_amg.config import Limits, ServerConfig
from sam2_amg.errors import RequestError
from sam2_amg.parameters import merged
from sam2_amg.server.archives import TYPES
from sam2_amg.server.batch import Batch, images_of
from sam2_amg.server.compression import compressed
from sam2_amg.server.desk import Desk
from sam2_amg.server.messages import error_answer, error_body, internal_error
from sam2_amg.server.openapi import register_openapi
from sam2_amg.server.page import register_page
from sam2_amg.server.parameters import Asked, asked_for, model_of, parameters_of, refusing
from sam2_amg.server.replies import json_line, response_of
from sam2_amg.server.slots import cancelled
from sam2_amg.server.status import register_status
from sam2_amg.server.ticket import TICKET, Ticket
from sam2_amg.server.upload import Upload, only_upload, received

logger = logging.getLogger(__name__)
_MIB = 1 << 20


def ticket_of_request(limits: Limits) -> Ticket:
    """The ticket that came with the request, or a new one."""
    if TICKET not in request.environ:
        request.environ[TICKET] = Ticket(time.monotonic() + limits.request_timeout)
    return request.environ[TICKET]


def rendered(answer: Answer) -> Response:
    """The response that carries an answer."""
    return Response(answer.data, mimetype=answer.mimetype)


def create_app(config: ServerConfig, desk: Desk) -> Flask:
    """The Flask application. The desk's engine makes the masks."""
    app = Flask(__name__, static_folder=None)
    register_uploads(app, config, desk)
    register_status(app, config, desk)
    register_openapi(app, config)
    register_page(app)
    register_errors(app)
    app.after_request(compressed)
    return app


def register_uploads(app: Flask, config: ServerConfig, desk: Desk) -> None:
    """Adds the routes that take images."""
    engine, limits = desk.engine, config.limits
    batches = threading.BoundedSemaphore(limits.queue_size)

    def read(most: int | None = None) -> tuple[list[Upload], Asked]:
        """The files of the request, and what it asks for; see `received`. Raises RequestError 400, 406, 413 or 415."""
        endpoint = str(request.endpoint)
        model = model_of(endpoint, config.bounds)
        parameters = parameters_of(request.query_string.decode("latin-1"), model)
        sent = received(request, model, most)
        with refusing():
            parameters = merged(parameters, sent.parameters)
        return sent.uploads, asked_for(parameters, endpoint, request.accept_mimetypes, engine.own or config.generator)

    def segmented() -> Response:
        """The answer to the only image of the request."""
        ticket = ticket_of_request(limits)
        if not ticket.enter("decoding"):
            raise cancelled()
        with engine.slot():
            uploads, asked = read()
            return rendered(desk.answer(only_upload(uploads), asked, ticket))

    @app.post("/upload")
    def upload() -> Response:
        return segmented()

    @app.post("/upload_rle")
    def upload_rle() -> Response:
        return segmented()

    @app.post("/segment")
    def segment() -> Response:
        return segmented()

    @app.post("/batch")
    def batch() -> Response:
        ticket = ticket_of_request(limits)
        engine.check_room()
        with taken(batches, limits) as place:
            uploads, asked = read(limits.max_batch_images)
            is_archive = request.mimetype in TYPES
            entries = images_of(uploads, limits.max_batch_images, limits.max_body_mib * _MIB, is_archive)
            ticket.enter("segmenting")
            at_once = min(engine.at_once, max(1, limits.queue_size // 2), len(entries))
            made = Batch(desk, asked, ticket, limits.request_timeout, at_once)
            return Response(made.lines(entries, place.pop_all().close), mimetype="application/x-ndjson")


def taken(batches: threading.BoundedSemaphore, limits: Limits) -> ExitStack:
    """Takes one of the places of batches; the stack gives it back. Raises RequestError queue_full (503)."""
    if not batches.acquire(blocking=False):
        message = f"{limits.queue_size} batches are under way (--queue_size); try again in 5 s."
        raise RequestError(503, "queue_full", message, retry_after=5)
    place = ExitStack()
    place.callback(batches.release)
    return place


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
                "GET / (in a browser), POST /upload, POST /upload_rle, POST /segment, POST /batch, GET /healthz, "
                "GET /readyz, GET /info, GET /metrics, GET /requests/ID, GET /openapi.json, GET /docs"
            )
            return "not_found", f"{request.path} does not exist. Use one of: {paths}."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            return "method_not_allowed", f"{request.path} does not support {request.method}; use {allowed}."
    return error.name.lower().replace(" ", "_"), error.description or error.name
