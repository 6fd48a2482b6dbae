"""The HTTP interface: routes, and errors as JSON."""

from __future__ import annotations

import logging
import platform
import threading
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import AGREEMENT_SOURCE, ServerConfig
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.pipeline.decode import decode_image
from sam2_amg.server.admission import over_limit
from sam2_amg.server.engine import Engine
from sam2_amg.server.messages import error_body
from sam2_amg.server.overlay import encode_png, overlay

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "torchvision", "torchao", "sam2", "flask", "pillow", "numpy")
_USAGE = "Send an image: curl -F 'image=@photo.jpg' to POST /upload (PNG) or /upload_rle (JSON)."
_MIB = 1 << 20


def json_line(value: Any, status: int = 200) -> Response:
    """A response of one JSON line with its newline, so that responses can be appended to a file."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, mimetype="application/json")


def rles_by_name(records: list[MaskRecord]) -> dict[str, Any]:
    """{"mask_0": {"size": [h, w], "counts": [...]}, ...} in the generator's order."""
    return {f"mask_{i}": record["segmentation"] for i, record in enumerate(records)}


def read_upload() -> bytes:
    """The bytes of the multipart field `image`. Raises RequestError missing_field or empty_body."""
    upload = request.files.get("image")
    if upload is None:
        if not request.content_length and not request.headers.get("Transfer-Encoding"):
            raise RequestError(400, "empty_body", f"The request has no body. {_USAGE}")
        message = f"The request is not a multipart form with a file in the field 'image'. {_USAGE}"
        raise RequestError(400, "missing_field", message)
    data = upload.read()
    if not data:
        raise RequestError(400, "empty_body", f"The file in the field 'image' is empty. {_USAGE}")
    return data


def create_app(config: ServerConfig, engine: Engine) -> Flask:
    """The Flask application. `engine` makes the masks."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = config.limits.max_body_mib * _MIB
    rendering = threading.Lock()  # one overlay at a time, because each takes several times its image's memory

    @app.post("/upload")
    def upload() -> Response:
        with engine.slot():
            image = decode_image(read_upload(), config.limits)
            records = engine.generate(image)
            with rendering:
                return Response(encode_png(overlay(image, records)), mimetype="image/png")

    @app.post("/upload_rle")
    def upload_rle() -> Response:
        with engine.slot():
            image = decode_image(read_upload(), config.limits)
            return json_line(rles_by_name(engine.generate(image)))

    @app.get("/healthz")
    def healthz() -> Response:
        if not engine.is_alive:
            raise RequestError(503, "not_serving", "The server does not accept requests.", retry_after=5)
        return json_line({"status": "ok"})

    @app.get("/readyz")
    def readyz() -> Response:
        if not engine.is_ready:
            doing = "shutting down" if engine.is_closing else engine.phase
            raise RequestError(503, "not_ready", f"Not ready yet: {doing}.", retry_after=5)
        return json_line({"status": "ready"})

    @app.get("/info")
    def info() -> Response:
        return json_line(describe(config, engine))

    register_errors(app, config)
    return app


def describe(config: ServerConfig, engine: Engine) -> dict[str, Any]:
    """The body of /info: model, mode, device, parameters, limits and versions."""
    versions = {name: version(name) for name in _PACKAGES}
    return {
        "model": config.model.model_type,
        "mode": config.model.mode.value,
        "agreement": {"with_baseline": config.model.mode.agreement, "source": AGREEMENT_SOURCE},
        "device": config.model.device,
        "batch_size": config.model.batch_size,
        "ready": engine.is_ready,
        "parameters": asdict(engine.generator.config if engine.generator else config.generator),
        "limits": asdict(config.limits),
        "compilations": count_compilations(),
        "queue": {"taken": engine.in_flight, "size": config.limits.queue_size},
        "versions": {"python": platform.python_version(), **versions},
    }


def register_errors(app: Flask, config: ServerConfig) -> None:
    """Registers handlers that turn every exception into a JSON response."""

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        response = json_line(error_body(error.code, error.message), error.status)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        code, message = _describe_http_error(error, config)
        response = json_line(error_body(code, message), error.code or 500)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.path, exc_info=error)
        message = f"The server failed on this request ({type(error).__name__}); its log has the traceback."
        return json_line(error_body("internal_error", message), 500)


def _describe_http_error(error: HTTPException, config: ServerConfig) -> tuple[str, str]:
    match error.code:
        case 404:
            paths = "POST /upload, POST /upload_rle, GET /healthz, GET /readyz, GET /info"
            return "not_found", f"{request.path} does not exist. Use one of: {paths}."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            return "method_not_allowed", f"{request.path} does not support {request.method}; use {allowed}."
        case 413 if (request.content_length or 0) <= config.limits.max_body_mib * _MIB:
            return "too_many_fields", f"The form has too many fields. {_USAGE}"
        case 413:
            return "body_too_large", over_limit(config.limits)
    return error.name.lower().replace(" ", "_"), error.description or error.name
