"""A body of multipart/form-data -> its parts, as RFC 7578 has them.

werkzeug's decoder reads a body in pieces, and adds a carriage return to a file if a piece ends within the closing
boundary. Here the body is whole in memory, and a part is a slice of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from werkzeug.http import parse_options_header

from sam2_amg.errors import RequestError

_PIECE = 1 << 20  # bytes that are searched at a time
_MOST_ALIKE = 10_000  # lines that begin with the boundary, and are none
_LONGEST_HEAD = 16 << 10  # bytes of a part's headers
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REST = re.compile(rb"(--)|[ \t]{0,64}(?=\r?\n)")  # of a line with a boundary; group 1 in the closing one
_CONTINUED = re.compile(r"\r?\n[ \t]+")
_PLAIN = frozenset({"7bit", "8bit", "binary", "identity"})  # codings that leave bytes as they are


@dataclass(frozen=True)
class Part:
    """A field of a form. `file_name` is None if the part has none, as text fields do."""

    name: str
    file_name: str | None
    data: bytes


def parts(body: bytes, boundary: str) -> Iterator[Part]:
    """The parts of a form, in order. Lines may end in LF alone. What follows the closing boundary is ignored.

    Raises RequestError malformed_form or unfinished_form (400), after the parts before the fault.
    """
    mark = b"--" + boundary.encode("latin-1", "replace")
    found = _REST.match(body, len(mark)) if body.startswith(mark) else None
    found = found or _search(b"\n" + mark, body, 0)
    if found is None:
        raise _malformed("does not have the boundary that Content-Type names; let the client set Content-Type")
    while not found[1]:
        start = found.end()
        head = _END_OF_HEAD.search(body, start, start + _LONGEST_HEAD)
        if head is None and len(body) - start >= _LONGEST_HEAD:
            raise _malformed(f"has a part whose headers exceed {_LONGEST_HEAD} bytes")
        found = _search(b"\n" + mark, body, head.end() - 1) if head else None
        if head is None or found is None:
            message = "The form has no closing boundary: it was cut off on its way. Send the whole form."
            raise RequestError(400, "unfinished_form", message)
        name, file_name = _names(body[start : head.start()])
        end = found.start() - len(mark) - 1  # the line break before a boundary is no part of the data
        if body[end - 1 : end] == b"\r":
            end -= 1
        yield Part(name, file_name, body[head.end() : max(end, head.end())])


def _search(mark: bytes, body: bytes, start: int) -> re.Match[bytes] | None:
    """What follows the first boundary from `start` on. Other threads have their turn after each piece of a long body.

    `bytes.find` goes through a file at many times the speed of a regular expression. Raises RequestError malformed_form
    (400) where very many lines begin with the boundary and are none.
    """
    alike = 0
    for place in range(start, len(body), _PIECE):
        end = min(place + _PIECE + len(mark) - 1, len(body))  # where a mark that begins in the piece ends
        while (place := body.find(mark, place, end)) >= 0:
            place += len(mark)
            if found := _REST.match(body, place):
                return found
            alike += 1
            if alike > _MOST_ALIKE:
                raise _malformed(f"has more than {_MOST_ALIKE} lines that begin with its boundary and go on")
    return None


def _names(head: bytes) -> tuple[str, str | None]:
    """The field's name and its file's, from the headers of a part. Raises RequestError malformed_form (400)."""
    lines = _CONTINUED.sub(" ", head.decode("utf-8", "replace").strip()).splitlines()
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for header in ("content-transfer-encoding", "content-encoding"):
        if headers.get(header, "binary").lower() not in _PLAIN:
            raise _malformed(f"has a part with {header.title()}; send the file's bytes as they are")
    options = parse_options_header(headers.get("content-disposition"))[1]
    if "name" not in options:
        raise _malformed('has a part without a name; it needs Content-Disposition: form-data; name="image"')
    return options["name"], options.get("filename")


def _malformed(what: str) -> RequestError:
    return RequestError(400, "malformed_form", f"The form {what}.")
