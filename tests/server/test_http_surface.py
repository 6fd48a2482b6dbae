"""Random requests, well-formed and not: each gets one answer in HTTP, and the server stays healthy."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest
from helpers import RunningServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.xdist_group("server")

TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=12)
PATHS = st.sampled_from(
    ["/upload", "/upload_rle", "/healthz", "/readyz", "/info", "/nowhere", "/upload/", "//", "/%00", "/%"]
)
TARGETS = st.one_of(PATHS, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40))
METHODS = st.one_of(st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT"]), TOKENS)
VERSIONS = st.sampled_from(["1.1", "1.1", "1.1", "1.0", "2.0", "0.9"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60)
TYPES = st.sampled_from(
    [
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=b-\xff",
        "multipart/form-data",
        "multipart/mixed; boundary=b",
        "image/png",
        "application/octet-stream",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
        "",
    ]
)
KNOWN = st.sampled_from(["Content-Length", "Transfer-Encoding", "Expect", "Host", "Connection", "Origin"])
HEADERS = st.one_of(
    st.tuples(st.just("Content-Type"), TYPES),
    st.tuples(KNOWN, VALUES),
    st.tuples(st.just("Transfer-Encoding"), st.sampled_from(["chunked", "gzip", "chunked, chunked"])),
    st.tuples(TOKENS, VALUES),
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.just(b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nabc\r\n--b--\r\n'),
    st.just(b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n'),
    st.just(b"3\r\nabc\r\n0\r\n\r\n"),
    st.just(b'{"image": "YWJj"}'),
    st.just(b'{"image": "data:image/png;base64,YWJj"}'),
    st.just(b'{"image": "http://127.0.0.1/a.png", "url": ["b"]}'),
)
QUERIES = st.sampled_from(["", "", "", "?stretch=minmax", "?stretch=%00", "?points_per_side=8", "?&", "?%ff=%"])
CODINGS = st.sampled_from(["", "", "", "identity", "gzip", ", "])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """The bytes of a request; now and then cut off, or with bytes changed."""
    body = draw(BODIES)
    headers = draw(st.lists(HEADERS, max_size=5))
    if draw(st.booleans()):
        headers.append(("Content-Length", str(len(body))))
    if draw(st.integers(0, 9)):
        headers.insert(0, ("Host", "127.0.0.1"))
    lines = [f"{draw(METHODS)} {draw(TARGETS)} HTTP/{draw(VERSIONS)}", *(f"{name}: {value}" for name, value in headers)]
    data = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=2)):
        data[place] = byte
    return bytes(data[: draw(st.integers(1, len(data)))] if not draw(st.integers(0, 9)) else data)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A body, perhaps with bytes changed, doubled or cut off."""
    data = bytearray(draw(BODIES) * draw(st.integers(1, 2)))
    if data:
        for place, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=3)):
            data[place] = byte
    return bytes(data if draw(st.booleans()) else data[: draw(st.integers(0, len(data)))])


def ask(server: RunningServer, data: bytes) -> None:
    """Sends it and says that nothing follows; what comes back, if anything, is HTTP, and errors are our JSON."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(data)
        client.settimeout(20 if is_whole(data) else 0.03)
        method = data.split(b" ", 1)[0].decode("latin-1")
        answer = HTTPResponse(client, method=method)
        try:
            answer.begin()
        except (TimeoutError, ConnectionResetError):  # it waits for the rest of the request
            return
        except Exception as error:
            if "RemoteDisconnected" in type(error).__name__:
                return
            raise
        body = answer.read()
    assert answer.status in {200, 204, 400, 401, 403, 404, 405, 408, 413, 415, 417, 431, 500, 501, 503}, (
        answer.status,
        data,
    )
    assert answer.status != 500, (body, data)
    if answer.status >= 400 and method != "HEAD":
        assert set(json.loads(body)["error"]) == {"code", "message"}


def is_whole(data: bytes) -> bool:
    """Whether the head is there, and no body can be missing."""
    head, end, _ = data.partition(b"\r\n\r\n")
    return bool(end) and b"ontent-" not in head and b"ransfer-" not in head


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_request_gets_an_answer(server: RunningServer, count: int) -> None:
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(requests())
    @example(b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    def check(data: bytes) -> None:
        ask(server, data)

    check()
    assert server.get("/healthz").status_code == 200
    assert server.get("/info").json()["queue"]["taken"] == 0


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_body_is_refused_with_a_reason(server: RunningServer, count: int) -> None:
    """None of them is an image."""
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=20)

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(st.sampled_from(["/upload", "/upload_rle"]), QUERIES, TYPES, CODINGS, bodies())
    def check(path: str, query: str, kind: str, coding: str, body: bytes) -> None:
        connection.request("POST", path + query, body, {"Content-Type": kind, "Content-Encoding": coding})
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        assert answer.status in {400, 415}, (error, body)
        assert set(error) == {"code", "message"}
        assert error["message"].endswith("."), error

    with closing(connection):
        check()
    assert server.get("/info").json()["queue"]["taken"] == 0
