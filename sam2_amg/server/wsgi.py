"""A request that is whole in memory -> a WSGI application -> its answer, whole in memory."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from werkzeug.test import run_wsgi_app

from sam2_amg.server.messages import Answer, Head

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def call(app: WSGIApplication, head: Head, body: bytes, extra: Mapping[str, Any], address: tuple[str, int]) -> Answer:
    """The application's answer. `extra` is added to the WSGI environment; `address` is the server's own."""
    chunks, status, headers = run_wsgi_app(app, environ_of(head, body, address) | dict(extra), buffered=True)
    return Answer(int(status.split(" ", 1)[0]), list(headers), b"".join(chunks))


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
