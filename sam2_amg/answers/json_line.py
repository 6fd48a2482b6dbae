"""JSON of one line."""

from __future__ import annotations

import orjson


def json_line(value: object) -> bytes:
    """One line of JSON with its newline, so that answers can be appended to a file. Arrays of numpy become lists."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
