"""What a client sends, in whichever way -> files and parameters.

The ways are a multipart form, the file itself, and JSON with base64. Nothing is ever fetched for a client.
"""

from __future__ import annotations

import binascii
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from werkzeug.wrappers import Request

from sam2_amg.errors import RequestError
from sam2_amg.parameters import Parameters, most_values, read_texts, read_values, schemas, shown
from sam2_amg.server.archives import TYPES, too_many
from sam2_amg.server.forms import Part, parts
from sam2_amg.server.parameters import refusing

FIELD = "image"  # the form's field, and JSON's key
_USAGE = f"Send an image: curl -F '{FIELD}=@photo.jpg' to POST /upload (PNG), /upload_rle (JSON) or /segment."
_WAYS = f"Send multipart/form-data with a file in '{FIELD}', the file itself as image/*, or application/json."
_SECOND = f"The form has more than one file in '{FIELD}'. Send a request for each, or all to POST /batch."
_UNNAMED = "image"  # the name of a file that comes without one
_JSON = f'Send {{"{FIELD}": "<the file in base64>"}}.'
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PIECE = 1 << 20  # characters of base64 that are decoded at a time, a multiple of four
_WHITESPACE = " \t\r\n"
_one_json_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Upload:
    """A file as it came. `name` is what the client calls it, and only to be shown."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Received:
    """What a body has. No upload is empty."""

    uploads: list[Upload]
    parameters: Parameters


def received(request: Request, model: type[Parameters], most: int | None = None) -> Received:
    """The files and parameters of a request: of one image, or with `most` of a batch of so many at most, which may be
    an archive.

    Raises RequestError 400, 413 or 415: a code of its own for each fault.
    """
    encoding = request.headers.get("Content-Encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        message = f"The body has Content-Encoding {shown(encoding)}; send it without, image files are compressed."
        raise RequestError(415, "compressed_body", message)
    body = request.stream.read()
    if not body:
        raise RequestError(400, "empty_body", f"The request has no body. {_USAGE}")
    kind, archives = request.mimetype, TYPES if most else ()
    if kind == "multipart/form-data":
        return _from_form(body, request.mimetype_params.get("boundary", ""), model, most)
    if kind in archives or (not archives and (kind.startswith("image/") or kind == "application/octet-stream")):
        return Received([Upload(_UNNAMED, body)], model())
    if kind == "application/json" and not archives:
        return _from_json(body, model)
    raise _wrong_type(kind, archives)


def only_upload(uploads: list[Upload]) -> Upload:
    """The only one of a request that is no batch. Raises RequestError missing_field (400)."""
    if not uploads:
        raise RequestError(400, "missing_field", f"The form has no file in the field '{FIELD}'. {_USAGE}")
    return uploads[0]


def _wrong_type(kind: str, archives: Collection[str]) -> RequestError:
    """415: a body of another type; curl's --data-binary says application/x-www-form-urlencoded."""
    what = f"is {shown(kind)}" if kind else "is missing"
    hint = " With curl --data-binary add -H 'Content-Type: image/jpeg'." if kind.endswith("form-urlencoded") else ""
    ways = f"Send multipart/form-data with files in '{FIELD}', or {' or '.join(archives)}." if archives else _WAYS
    return RequestError(415, "unsupported_media_type", f"The request's Content-Type {what}. {ways}{hint}")


def _from_form(body: bytes, boundary: str, model: type[Parameters], most: int | None) -> Received:
    if not boundary:
        message = "Content-Type is multipart/form-data without a boundary. Let the client set Content-Type."
        raise RequestError(400, "no_boundary", message)
    uploads: list[Upload] = []
    with refusing():
        parameters = read_texts(_texts_of(parts(body, boundary), uploads, most, model), model)
    return Received(uploads, parameters)


def _texts_of(
    form: Iterable[Part], uploads: list[Upload], most: int | None, model: type[Parameters]
) -> Iterator[tuple[str, str]]:
    """The text fields of a form; its files are added to `uploads`. Of too many files the rest is not looked at."""
    for part in form:
        if part.name == FIELD:
            uploads.append(_upload_of(part))
            if len(uploads) > (most or 1):
                raise too_many(most) if most else RequestError(400, "second_image", _SECOND)
        elif part.file_name is not None and part.name not in schemas(model):
            usage = f"Send it in '{FIELD}': curl -F '{FIELD}=@photo.jpg'."
            raise RequestError(400, "wrong_field", f"The file is in the field {shown(part.name)}. {usage}")
        else:
            yield part.name, part.data.decode("utf-8", "replace")


def _upload_of(part: Part) -> Upload:
    if part.file_name is None:
        message = f"The field '{FIELD}' has no file name, as text has none. {_USAGE}"
        raise RequestError(400, "no_file_name", message)
    if not part.data:
        raise RequestError(400, "empty_body", f"The file in the field '{FIELD}' is empty. {_USAGE}")
    return Upload(part.file_name or _UNNAMED, part.data)


def _from_json(body: bytes, model: type[Parameters]) -> Received:
    """What {"image": "<base64>", ...} has. It takes up to four times the body's memory while it works."""
    with _one_json_at_a_time:
        values = _object_of(body, model)
        text = values.pop(FIELD, None)
        with refusing():
            parameters = read_values(values, model)
        if not isinstance(text, str):
            raise RequestError(400, "missing_field", f'The JSON has no text in "{FIELD}". {_JSON}')
        if _URL.match(text, 0, 100):
            message = f'The text in "{FIELD}" is a URL, and the server fetches none. Send the file itself. {_JSON}'
            raise RequestError(400, "url_not_fetched", message)
        data = _decode(text)
    if not data:
        raise RequestError(400, "empty_body", f'The file in "{FIELD}" is empty. {_JSON}')
    return Received([Upload(_UNNAMED, data)], parameters)


def _object_of(body: bytes, model: type[Parameters]) -> dict[str, Any]:
    """A JSON object. Raises RequestError 400, also for a key that comes twice."""
    most = sum(1 + most_values(schema) for schema in schemas(model).values()) + 2
    if len(body) - len(body.translate(None, b",[{")) > most:  # its values would take many times the body's memory
        raise RequestError(400, "invalid_json", f"The JSON has more values than an image and all parameters. {_JSON}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, "invalid_json", f"The body is not JSON ({error}). {_JSON}") from error
    if not isinstance(value, dict):
        raise RequestError(400, "invalid_json", f"The body is JSON, but no object. {_JSON}")
    if body.count(b'"') > 2 * (len(value) + sum(isinstance(one, str) for one in value.values())):
        _refuse_twice(body, [key for key in (FIELD, *schemas(model)) if key in value])
    return value


def _refuse_twice(body: bytes, known: Sequence[str]) -> None:
    """Raises RequestError 400 if one of these keys comes twice; others are refused later. Texts with quotes, which are
    no parameter's, pass."""
    twice = [key for key in known if body.count(b'"%s"' % key.encode()) > 1]
    if FIELD in twice:
        raise RequestError(400, "second_image", f'The JSON has "{FIELD}" more than once. Send a request for each.')
    if twice:
        message = f"The parameter {shown(twice[0])} comes more than once; send it once."
        raise RequestError(400, "invalid_parameter", message)


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
