"""Answers are compressed if the client asks (Accept-Encoding).

flask-compress does the same, but takes `gzip;q=0`, which refuses gzip, for a wish.
"""

from __future__ import annotations

import gzip

from backports import zstd
from flask import Response, request

_CODINGS = ("zstd", "gzip", "identity")  # the best first
_TYPES = frozenset({"application/json", "text/plain", "text/html", "text/css", "text/javascript"})
_LEAST = 1024  # bytes; less is not worth it
_GZIP_LEVEL, _ZSTD_LEVEL = 4, 3


def compressed(response: Response) -> Response:
    """The response, compressed in place if its kind and its length are worth it and the client takes it."""
    if response.is_streamed or response.mimetype not in _TYPES or response.status_code != 200:
        return response
    response.vary.add("Accept-Encoding")
    coding = request.accept_encodings.best_match(_CODINGS) if request.accept_encodings else None
    if coding in (None, "identity") or request.method == "HEAD" or (response.content_length or 0) < _LEAST:
        return response
    response.set_data(_encode(response.get_data(), str(coding)))
    response.content_encoding = coding
    return response


def _encode(data: bytes, coding: str) -> bytes:
    if coding == "zstd":
        return zstd.compress(data, _ZSTD_LEVEL)
    return gzip.compress(data, _GZIP_LEVEL, mtime=0)
