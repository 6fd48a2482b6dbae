"""Flask responses."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response


def json_line(value: Any, status: int = 200) -> Response:
    """A response of one JSON line with its newline, so that responses can be appended to a file."""
    return Response(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), status, mimetype="application/json")
