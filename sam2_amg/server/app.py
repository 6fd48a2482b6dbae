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
from sam2_amg.config import Limits, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.server.engine import Engine
from sam2_amg.server.overlay import encode_png, overlay

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "torchvision", "torchao", "sam2", "flask", "pillow", "simplejpeg", "numpy")
_USAGE = "Send an image: curl -F 'image=@photo.jpg' to POST /upload (PNG) or /upload_rle (JSON)."
_MIB = 1 << 20


def json_line(value: Any, status: int = 200) -> Response:
    """A response of one line of JSON, newline included, so that a file of answers is a file of lines."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, mimetype="application/json")


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The body of every error."""
    return {"error": {"code": code, "message": message}}


def over_limit(limits: Limits) -> str:
    """What is wrong with a body that is too large."""
    return f"The body is over the limit of {limits.max_body_mib} MiB (--max_body_mib)."


def rles_by_name(records: list[MaskRecord]) -> dict[str, Any]:
    """{"mask_0": {"size": [h, w], "counts": [...]}, ...} in the generator's order."""
    return {f"mask_{i}": record["segmentation"] for i, record in enumerate(records)}


def read_upload() -> bytes:
    """The bytes of the multipart field `image`. Raises RequestError missing_field or empty_body."""
    upload = request.files.get("image")
    if upload is None:
        if not request.content_length and not request.headers.get("Transfer-Encoding"):
            raise RequestError(400, "empty_body", f"The request has no body. {_USAGE}")
        raise RequestError(400, "missing_field", f"No multipart form with a file in the field 'image'. {_USAGE}")
    data = upload.read()
    if not data:
        raise RequestError(400, "empty_body", f"The file in the field 'image' is empty. {_USAGE}")
    return data


def create_app(config: ServerConfig, engine: Engine, decoders: DecoderPool) -> Flask:
    """The Flask application that answers with `engine`, and decodes with `decoders`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = config.limits.max_body_mib * _MIB
    rendering = threading.Lock()  # one overlay at a time: each takes several times its image's memory

    @app.post("/upload")
    def upload() -> Response:
        with engine.slot(), decoders.decoded(read_upload()) as image:
            records = engine.generate(image)
            with rendering:
                return Response(encode_png(overlay(image, records)), mimetype="image/png")

    @app.post("/upload_rle")
    def upload_rle() -> Response:
        with engine.slot(), decoders.decoded(read_upload()) as image:
            return json_line(rles_by_name(engine.generate(image)))

    @app.get("/healthz")
    def healthz() -> Response:
        if not engine.is_alive:
            raise RequestError(503, "not_serving", "The server does not take requests.", retry_after=5)
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
    """What /info answers: model, mode, device, parameters, limits and versions."""
    versions = {name: version(name) for name in _PACKAGES}
    return {
        "model": config.model.model_type,
        "mode": config.model.mode.value,
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
    """Every error leaves as JSON, and none of them takes the server along."""

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
        message = f"The server failed on this request ({type(error).__name__}); its log says more."
        return json_line(error_body("internal_error", message), 500)


def _describe_http_error(error: HTTPException, config: ServerConfig) -> tuple[str, str]:
    match error.code:
        case 404:
            paths = "POST /upload, POST /upload_rle, GET /healthz, GET /readyz, GET /info"
            return "not_found", f"There is no {request.path} here. There are: {paths}."
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
            return "method_not_allowed", f"{request.path} does not take {request.method}; it takes {allowed}."
        case 413 if (request.content_length or 0) <= config.limits.max_body_mib * _MIB:
            return "too_many_fields", f"The form has too many fields. {_USAGE}"
        case 413:
            return "body_too_large", over_limit(config.limits)
    return error.name.lower().replace(" ", "_"), error.description or error.name
