"""Routes that tell how the server is, what it counts, and where a request is."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from flask import Flask, Response

from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import AGREEMENT_SOURCE, ServerConfig
from sam2_amg.errors import RequestError
from sam2_amg.server.desk import Desk
from sam2_amg.server.metrics import CONTENT_TYPE
from sam2_amg.server.reception import Reception
from sam2_amg.server.replies import json_line
from sam2_amg.server.ticket import Ticket

_PACKAGES = ("torch", "torchvision", "torchao", "sam2", "flask", "pillow", "simplejpeg", "numpy")


def register_status(app: Flask, config: ServerConfig, desk: Desk) -> None:
    """Adds the routes to an application."""
    register_health(app, desk.engine)

    @app.get("/info")
    def info() -> Response:
        return json_line(describe(config, desk.engine))

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(desk.metrics.text(), content_type=CONTENT_TYPE)

    @app.get("/requests/<path:request_id>")
    def request_state(request_id: str) -> Response:
        return json_line(describe_ticket(desk.engine, desk.tickets.get(request_id), request_id))

    @app.delete("/requests/<path:request_id>")
    def cancel_request(request_id: str) -> Response:
        return json_line(describe_ticket(desk.engine, desk.tickets.cancel(request_id), request_id))


def register_health(app: Flask, engine: Reception) -> None:
    """Adds /healthz and /readyz."""

    @app.get("/healthz")
    def healthz() -> Response:
        if engine.failure:
            raise engine.failure.refusal()
        if not engine.is_alive:
            raise RequestError(503, "not_serving", "The server does not accept requests.", retry_after=5)
        return json_line({"status": "ok"})

    @app.get("/readyz")
    def readyz() -> Response:
        if engine.failure:
            raise engine.failure.refusal()
        if not engine.is_ready:
            doing = "shutting down" if engine.is_stopping or engine.is_closing else engine.phase
            raise RequestError(503, "not_ready", f"Not ready yet: {doing}.", retry_after=5)
        return json_line({"status": "ready"})


def describe_ticket(engine: Reception, ticket: Ticket | None, request_id: str) -> dict[str, Any]:
    """Where a request is. Raises RequestError 404 if no ticket of it is kept."""
    if ticket is None:
        message = f"No request {request_id!r} is under way, or was in the last minutes (X-Request-ID names requests)."
        raise RequestError(404, "unknown_request", message)
    place = engine.place_of(request_id)
    seconds = {state: round(time.monotonic() - begun, 3) for state, begun in list(ticket.times.items())}
    return {"id": request_id, "state": ticket.state, "place": place, "seconds_since": seconds}


def describe(config: ServerConfig, engine: Reception) -> dict[str, Any]:
    """The body of /info: model, mode, device, parameters, limits and versions."""
    return {
        "model": config.model.model_type,
        "mode": config.model.mode.value,
        "agreement": {"with_baseline": config.model.mode.agreement, "source": AGREEMENT_SOURCE},
        "device": config.model.device,
        "weights": asdict(engine.weights) if engine.weights else None,
        "batch_size": config.model.batch_size,
        "ready": engine.is_ready,
        "parameters": asdict(engine.own or config.generator),
        "limits": asdict(config.limits) | asdict(config.bounds),
        "compilations": count_compilations(),
        "queue": {"taken": engine.in_flight, "size": config.limits.queue_size},
        "versions": _versions(),
        **engine.describe(),
    }


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
