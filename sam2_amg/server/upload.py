"""What a client sends, in whichever way -> a stream of uploads.

The ways are a multipart form, the file itself, and JSON with base64. Nothing is ever fetched for a client.
"""

from __future__ import annotations

import binascii
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from werkzeug.wrappers import Request

from sam2_amg.errors import RequestError
from sam2_amg.server.forms import Part, parts
from sam2_amg.server.parameters import KNOWN, shown

FIELD = "image"  # the form's field, and JSON's key
_USAGE = f"Send an image: curl -F '{FIELD}=@photo.jpg' to POST /upload (PNG) or /upload_rle (JSON)."
_WAYS = f"Send multipart/form-data with a file in '{FIELD}', the file itself as image/*, or application/json."
_UNNAMED = "image"  # the name of a file that comes without one
_JSON = f'Send {{"{FIELD}": "<the file in base64>"}}.'
_MOST_JSON = 100  # commas and opening brackets: an object of very many values takes many times the body's memory
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PIECE = 1 << 20  # characters of base64 that are decoded at a time, a multiple of four
_WHITESPACE = " \t\r\n"
_one_json_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Upload:
    """A file as it came. `name` is what the client calls it, and only to be shown."""

    name: str
    data: bytes


def uploads_of(request: Request) -> Iterator[Upload]:
    """The files of a request, in order; none is empty.

    Raises RequestError 400 or 415, perhaps after the first files: a code of its own for each fault.
    """
    encoding = request.headers.get("Content-Encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        message = f"The body has Content-Encoding {shown(encoding)}; send it without, image files are compressed."
        raise RequestError(415, "compressed_body", message)
    body = request.stream.read()
    if not body:
        raise RequestError(400, "empty_body", f"The request has no body. {_USAGE}")
    kind = request.mimetype
    if kind == "multipart/form-data":
        yield from _from_form(body, request.mimetype_params.get("boundary", ""))
    elif kind.startswith("image/") or kind == "application/octet-stream":
        yield Upload(_UNNAMED, body)
    elif kind == "application/json":
        yield _from_json(body)
    else:
        raise _wrong_type(kind)


def only_upload(uploads: Iterable[Upload]) -> Upload:
    """The only one of a stream, which is read to its end. Raises RequestError missing_field or second_image (400)."""
    only = None
    for upload in uploads:
        if only is not None:
            message = f"The form has more than one file in '{FIELD}'. Send a request for each."
            raise RequestError(400, "second_image", message)
        only = upload
    if only is None:
        raise RequestError(400, "missing_field", f"The form has no file in the field '{FIELD}'. {_USAGE}")
    return only


def _wrong_type(kind: str) -> RequestError:
    """415: a body of another type; curl's --data-binary says application/x-www-form-urlencoded."""
    what = f"is {shown(kind)}" if kind else "is missing"
    hint = " With curl --data-binary add -H 'Content-Type: image/jpeg'." if kind.endswith("form-urlencoded") else ""
    return RequestError(415, "unsupported_media_type", f"The request's Content-Type {what}. {_WAYS}{hint}")


def _from_form(body: bytes, boundary: str) -> Iterator[Upload]:
    if not boundary:
        message = "Content-Type is multipart/form-data without a boundary. Let the client set Content-Type."
        raise RequestError(400, "no_boundary", message)
    for part in parts(body, boundary):
        yield _from_part(part)


def _from_part(part: Part) -> Upload:
    if part.name != FIELD and part.file_name is not None:
        message = f"The file is in the field {shown(part.name)}. Send it in '{FIELD}': curl -F '{FIELD}=@photo.jpg'."
        raise RequestError(400, "wrong_field", message)
    if part.name != FIELD:
        message = f"The form's field {shown(part.name)} is not known. The only field is the file '{FIELD}'. {KNOWN}"
        raise RequestError(400, "unknown_parameter", message)
    if part.file_name is None:
        message = f"The field '{FIELD}' has no file name, as text has none. {_USAGE}"
        raise RequestError(400, "no_file_name", message)
    if not part.data:
        raise RequestError(400, "empty_body", f"The file in the field '{FIELD}' is empty. {_USAGE}")
    return Upload(part.file_name or _UNNAMED, part.data)


def _from_json(body: bytes) -> Upload:
    """The upload of {"image": "<base64>"}. It takes up to four times the body's memory while it works."""
    with _one_json_at_a_time:
        text = _object_of(body).get(FIELD)
        if not isinstance(text, str):
            raise RequestError(400, "missing_field", f'The JSON has no text in "{FIELD}". {_JSON}')
        if _URL.match(text, 0, 100):
            message = f'The text in "{FIELD}" is a URL, and the server fetches none. Send the file itself. {_JSON}'
            raise RequestError(400, "url_not_fetched", message)
        data = _decode(text)
    if not data:
        raise RequestError(400, "empty_body", f'The file in "{FIELD}" is empty. {_JSON}')
    return Upload(_UNNAMED, data)


def _object_of(body: bytes) -> dict[str, Any]:
    """A JSON object without other keys than FIELD. Raises RequestError 400."""
    if len(body) - len(body.translate(None, b",[{")) > _MOST_JSON:
        raise RequestError(400, "invalid_json", f"The body has more than an object with one key. {_JSON}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, "invalid_json", f"The body is not JSON ({error}). {_JSON}") from error
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", f"The body is JSON, but no object. {_JSON}")
    for key in value.keys() - {FIELD}:
        message = f'The key {shown(key)} of the JSON is not known. The only key is "{FIELD}". {KNOWN}'
        raise RequestError(400, "unknown_parameter", message)
    if body.count(b'"%s"' % FIELD.encode()) > 1:
        raise RequestError(400, "second_image", f'The JSON has "{FIELD}" more than once. Send a request for each.')
    return value


def _decode(text: str) -> bytes:
    """The bytes of base64, which may have whitespace in it, and "data:...;base64," before it. Raises RequestError."""
    text = text.strip()
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise RequestError(400, "invalid_base64", f'The data URL in "{FIELD}" is not in base64. {_JSON}')
    try:
        if any(space in text for space in _WHITESPACE):
            text = text.encode("ascii").translate(None, _WHITESPACE.encode()).decode("ascii")
        if 0 <= text.find("=") < len(text) - 2:
            raise ValueError("padding before its end")
        pieces = range(0, len(text), _PIECE)  # other threads have their turn after each
        return b"".join(binascii.a2b_base64(text[i : i + _PIECE], strict_mode=True) for i in pieces)
    except ValueError as error:
        message = f'The text in "{FIELD}" is not base64 ({str(error).lower()}). {_JSON}'
        raise RequestError(400, "invalid_base64", message) from error
