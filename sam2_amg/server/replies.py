"""Flask responses."""

from __future__ import annotations

from typing import Any

from flask import Response

from sam2_amg.server.messages import Answer, json_answer


def json_line(value: Any, status: int = 200) -> Response:
    """A response of one JSON line with its newline, so that responses can be appended to a file."""
    return response_of(json_answer(value, status))


def response_of(answer: Answer) -> Response:
    """The same for Flask."""
    return Response(answer.body, answer.status, dict(answer.headers))
