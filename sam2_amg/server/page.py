"""The page at /: its HTML, style sheet, scripts and sample photographs. It loads nothing from other hosts."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from flask import Flask, Response, abort, request

from sam2_amg.demo import PHOTOGRAPHS

STATIC = Path(str(files("sam2_amg.server"))) / "static"
HOME = "index.html"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
"""The kinds of files that the page has, by the end of their names."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_files() -> dict[str, Path]:
    """The files of the page by their names below /page/: those of the package, and samples/ with its photographs."""
    static = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.suffix in TYPES}
    samples = {f"samples/{path.name}": path for path in PHOTOGRAPHS.glob("*.jpg")}
    return dict(sorted((static | samples).items()))


def register_page(app: Flask) -> None:
    """Adds / and /page/ to an application. Files that are not there now are never answered."""
    known = page_files()

    @app.get("/")
    def home() -> Response:
        return _answer(known, HOME)

    @app.get("/page/<path:name>")
    def page_file(name: str) -> Response:
        return _answer(known, name)


def _answer(known: Mapping[str, Path], name: str) -> Response:
    if name not in known:
        abort(404)
    path = known[name]
    data = path.read_bytes()
    response = Response(data, mimetype=TYPES[path.suffix])
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(sha256(data).hexdigest()[:32], weak=True)  # weak: the answer may be compressed
    response.make_conditional(request)
    return response
