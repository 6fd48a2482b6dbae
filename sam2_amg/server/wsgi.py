"""A request that is whole in memory -> a WSGI application -> its answer."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sam2_amg.server.messages import Answer, Head

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def call(app: WSGIApplication, head: Head, body: bytes, extra: Mapping[str, Any], address: tuple[str, int]) -> Answer:
    """The application's answer. `extra` is added to the WSGI environment; `address` is the server's own.

    An answer of a length that the application does not know is a stream.
    """
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
        started.append((status, headers))
        return _write

    pieces = app(environ_of(head, body, address) | dict(extra), start_response)
    status, headers = started[-1]  # Flask has called it by now
    code = int(status.split(" ", 1)[0])
    stream = _Pieces(pieces)
    if code not in (204, 304) and not any(name.lower() == "content-length" for name, _ in headers):
        return Answer(code, headers, b"", stream)
    with closing(stream):
        return Answer(code, headers, b"".join(pieces))


def _write(_data: bytes) -> None:
    raise NotImplementedError("WSGI's old way of writing; Flask has none")


class _Pieces:
    """What an application answers, as a `Stream`."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self._iterator = iter(pieces)

    def __next__(self) -> bytes:
        return next(self._iterator)

    def close(self) -> None:
        if hasattr(self._pieces, "close"):
            self._pieces.close()


def environ_of(head: Head, body: bytes, address: tuple[str, int]) -> dict[str, Any]:
    """The environment of PEP 3333. A chunked body arrives here with its length."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": head.path,
        "QUERY_STRING": head.query,
        "SERVER_NAME": address[0],
        "SERVER_PORT": str(address[1]),
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
        "REMOTE_ADDR": head.client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,  # so it is read without a copy
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in head.headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if key == "HTTP_TRANSFER_ENCODING" or "_" in name:  # a_b and a-b would be one name
            continue
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if head.has_body or body:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ
