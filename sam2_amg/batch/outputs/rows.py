"""The row of an image: what every output says of it, and its names in outputs.

{"image": name, "width", "height", "sha256", "settings", "ms": {stage: milliseconds}}. An image that failed has
"error": {"code", "message"}, too. `width` and `height` are null if it could not be decoded.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import orjson

from sam2_amg.answers.json_line import json_line
from sam2_amg.batch.items import Problem, Result

Row = dict[str, Any]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def row_of(result: Result) -> Row:
    """The row of an image, with its settings left empty: `with_settings` fills them in."""
    height, width = result.size or (None, None)
    row: Row = {"image": result.name, "width": width, "height": height, "sha256": result.sha256, "settings": ""}
    row["ms"] = result.milliseconds
    return with_error(row, result.found) if isinstance(result.found, Problem) else row


def with_settings(row: Row, settings: str) -> Row:
    """The same row with the hash of its settings, in the same order."""
    return {**row, "settings": settings}


def with_error(row: Row, problem: Problem) -> Row:
    """The same row, which says why there are no masks."""
    return {**row, "error": {"code": problem.code, "message": problem.message}}


def json_of(value: object) -> bytes:
    """A line of JSON. Bytes that are not UTF-8 (lone surrogates) are escaped as \\udc80 to \\udcff.

    `os.fsencode(json.loads(line)["image"])` gives the bytes of a name back.
    """
    try:
        return json_line(value)
    except orjson.JSONEncodeError:  # it refuses lone surrogates
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def safe_name(name: str) -> str | None:
    """A name as a relative path below a folder; None if there is none.

    `s3://` becomes `s3/`. Slashes at the beginning, empty parts and `.` are left out. Names with a part `..` or a zero
    byte, and names without any part, have no such path.
    """
    parts = [part for part in _SCHEME.sub(r"\1/", name, count=1).split("/") if part not in ("", ".")]
    return None if not parts or ".." in parts or "\0" in name else "/".join(parts)


def with_safe_name(result: Result) -> Result:
    """The same result, with a Problem in place of its masks if its name is no path below a folder."""
    if isinstance(result.found, Problem) or safe_name(result.name) is not None:
        return result
    message = f"{result.name!r} names no file below the output; give the image a name without '..' parts"
    return replace(result, found=Problem("unsafe_name", message))
