"""The ways of sending an image, each fault of a body, and parameters, over HTTP to a real server."""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import socket
import time

import numpy as np
import orjson
import pytest
import requests
from helpers import RunningServer, assert_error, drawn_image, png
from PIL import Image
from werkzeug.wrappers import Request

from sam2_amg.errors import RequestError
from sam2_amg.parameters import Parameters
from sam2_amg.server import forms
from sam2_amg.server.forms import parts
from sam2_amg.server.messages import Head
from sam2_amg.server.upload import Upload, only_upload, received
from sam2_amg.server.wsgi import environ_of

pytestmark = pytest.mark.xdist_group("server")

PICTURE = png(drawn_image(60, 90))
CODED = base64.b64encode(PICTURE)
FORM = "multipart/form-data; boundary=b"
END = b"--b--\r\n"


def part(disposition: str, data: bytes = PICTURE, more: str = "") -> bytes:
    """A part of a form with the boundary b."""
    return f"--b\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + data + b"\r\n"


IMAGE = part('form-data; name="image"; filename="a.png"')


def send(server: RunningServer, body: bytes, kind: str | None, path: str = "/upload_rle", **headers: str):
    """The answer to a body of this Content-Type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {} if kind is None else {"Content-Type": kind}
    return requests.post(server.url + path, data=body, headers=named, timeout=60)


@pytest.fixture(scope="module")
def expected(server: RunningServer) -> bytes:
    """The answer to PICTURE."""
    answer = server.post("/upload_rle", PICTURE)
    assert answer.status_code == 200
    assert len(answer.json()) >= 2
    return answer.content


WAYS = {
    "image type": (PICTURE, "image/png"),
    "JSON": (b'{"image": "%s"}' % CODED, "application/json; charset=utf-8"),
    "data URL, lines, escapes": (
        json.dumps({"image": " data:image/png;base64," + base64.encodebytes(PICTURE).decode()})
        .replace("/", "\\/")
        .encode(),
        "application/json",
    ),
    "form without CR, preamble, epilogue": (
        b'ignored\n--b\nContent-Disposition: form-data;\n name="image"; filename=""\n\n' + PICTURE + b"\n--b--ignored",
        FORM,
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_same_bytes_get_the_same_answer(server: RunningServer, expected: bytes, name: str) -> None:
    answer = send(server, *WAYS[name])
    assert answer.status_code == 200, answer.text
    assert answer.content == expected


def test_a_chunked_body_without_a_length(server: RunningServer, expected: bytes) -> None:
    pieces = (PICTURE[start : start + 1000] for start in range(0, len(PICTURE), 1000))
    headers = {"Content-Type": "application/octet-stream"}
    assert requests.post(f"{server.url}/upload_rle", data=pieces, headers=headers, timeout=60).content == expected


def test_an_upload_has_the_name_that_the_client_gives() -> None:
    named = part('form-data; name="image"; filename="my \\"cat\\".png"')
    for (body, kind), name in (((named + END, FORM), 'my "cat".png'), (WAYS["JSON"], "image")):
        head = Head("POST", "/upload", "", "1.1", [("content-type", kind), ("content-length", str(len(body)))])
        request = Request(environ_of(head, body, ("127.0.0.1", 5000)))
        assert only_upload(received(request, Parameters).uploads) == Upload(name, PICTURE)


def json_of(text: str) -> tuple[bytes, str]:
    return json.dumps({"image": text}).encode(), "application/json"


FAULTS = {
    "no boundary": ((IMAGE + END, "multipart/form-data"), 400, "no_boundary", "without a boundary"),
    "other boundary": ((IMAGE + END, FORM + "x"), 400, "malformed_form", "not have the boundary that Content-Type"),
    "cut off in a file": ((IMAGE[:-50], FORM), 400, "unfinished_form", "no closing boundary"),
    "cut off after a file": ((IMAGE, FORM), 400, "unfinished_form", "no closing boundary"),
    "cut off in a head": ((IMAGE[:20], FORM), 400, "unfinished_form", "no closing boundary"),
    "long head": ((part("form-data", more="A: b\r\n" * 5000) + END, FORM), 400, "malformed_form", "16384 bytes"),
    "lines like its boundary": ((IMAGE + b"\n--b-" * 20_000 + END, FORM), 400, "malformed_form", "10000 lines that"),
    "no headers": ((b"--b\r\n\r\nabc\r\n--b--", FORM), 400, "malformed_form", "a part without a name"),
    "no name": ((part("form-data; filename=a") + END, FORM), 400, "malformed_form", "a part without a name"),
    "coded part": (
        (part("form-data; name=image; filename=a", CODED, "Content-Transfer-Encoding: base64\r\n") + END, FORM),
        400,
        "malformed_form",
        "Content-Transfer-Encoding",
    ),
    "no file name": ((part("form-data; name=image") + END, FORM), 400, "no_file_name", "'image' has no file name"),
    "text of 2 MB": (  # what curl -F 'image=<photo.jpg' sends
        (part("form-data; name=image", b"x" * 2_000_000) + END, FORM),
        400,
        "no_file_name",
        "curl -F 'image=@photo.jpg'",
    ),
    "other field": ((part("form-data; name=photo; filename=a") + END, FORM), 400, "wrong_field", "the field 'photo'"),
    "second image before what is broken": ((IMAGE * 3 + b"--b", FORM), 400, "second_image", "more than one file"),
    "second image": ((IMAGE * 2 + END, FORM), 400, "second_image", "more than one file in 'image'"),
    "text field": (
        (IMAGE + part("form-data; name=points_per_sides", b"8") + END, FORM),
        400,
        "unknown_parameter",
        "'points_per_sides' does not exist. Known parameters: counts",
    ),
    "wrong value in a field": (
        (IMAGE + part("form-data; name=stretch", b"max") + END, FORM),
        400,
        "invalid_parameter",
        "stretch must be minmax or percentile, not 'max'",
    ),
    "field twice": (
        (part("form-data; name=disjoint", b"1") * 2 + IMAGE + END, FORM),
        400,
        "invalid_parameter",
        "disjoint comes more than once",
    ),
    "2,000 fields": ((part("form-data; name=a") * 2000 + END, FORM), 400, "unknown_parameter", "'a'"),
    "no image": ((END, FORM), 400, "missing_field", "no file in the field 'image'"),
    "empty file": (
        (part("form-data; name=image; filename=a", b"") + END, FORM),
        400,
        "empty_body",
        "The file in the field 'image' is empty",
    ),
    "empty body": ((b"", "image/png"), 400, "empty_body", "no body"),
    "URL-encoded": (
        (PICTURE, "application/x-www-form-urlencoded"),
        415,
        "unsupported_media_type",
        "add -H 'Content-Type: image/jpeg'",
    ),
    "text": ((PICTURE, "text/plain"), 415, "unsupported_media_type", "Content-Type is 'text/plain'. Send"),
    "no type": ((PICTURE, None), 415, "unsupported_media_type", "Content-Type is missing. Send"),
    "no JSON": ((b'{"image": "', "application/json"), 400, "invalid_json", "not JSON (unexpected end"),
    "JSON of binary": ((PICTURE, "application/json"), 400, "invalid_json", "not JSON"),
    "JSON list": ((b'["image"]', "application/json"), 400, "invalid_json", "no object"),
    "JSON of a million lists": (
        (b'{"image": [%s[]]}' % (b"[]," * 1_000_000), "application/json"),
        400,
        "invalid_json",
        "more values than an image and all parameters",
    ),
    "JSON without image": ((b"{}", "application/json"), 400, "missing_field", "no text in"),
    "JSON null": ((b'{"image": null}', "application/json"), 400, "missing_field", "no text in"),
    "JSON twice": ((b'{"image": "YQ==", "image": "YQ=="}', "application/json"), 400, "second_image", "more than once"),
    "JSON key": (
        (b'{"image": "YQ==", "\\u20acurl": 1}', "application/json"),
        400,
        "unknown_parameter",
        r"'\u20acurl' does not exist",
    ),
    "JSON value": (
        (b'{"image": "YQ==", "points_per_side": "8"}', "application/json"),
        400,
        "invalid_parameter",
        "points_per_side must be a whole number from 1 to 64, not '8'",
    ),
    "JSON parameter twice": (
        (b'{"image": "YQ==", "points": [[1, 2]], "points": [[1, 3]]}', "application/json"),
        400,
        "invalid_parameter",
        "'points' comes more than once",
    ),
    "no base64": (json_of("YQ==!"), 400, "invalid_base64", "is not base64"),
    "base64 cut off": (json_of("YWJ"), 400, "invalid_base64", "incorrect padding"),
    "base64 twice": (json_of("YQ==" * 300_000), 400, "invalid_base64", "padding before its end"),
    "letters that base64 lacks": (json_of("\xe9\n"), 400, "invalid_base64", "is not base64"),
    "data URL of text": (json_of("data:image/png,abc"), 400, "invalid_base64", "data URL in"),
    "empty base64": (json_of("data:image/png;base64,"), 400, "empty_body", 'The file in "image" is empty'),
    "URL": (json_of("http://127.0.0.1/a.png"), 400, "url_not_fetched", "is a URL, and the server fetches none"),
    "file URL": (json_of(" FILE:///etc/passwd"), 400, "url_not_fetched", "is a URL"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_code_and_sentence(server: RunningServer, name: str) -> None:
    sent, status, code, sentence = FAULTS[name]
    for path in ("/upload", "/upload_rle"):
        answer = send(server, *sent, path)
        assert_error(answer, status, code)
        assert sentence in answer.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "BR", "deflate, gzip"])
def test_compressed_bodies(server: RunningServer, encoding: str) -> None:
    answer = send(server, gzip.compress(IMAGE + END), FORM, Content_Encoding=encoding)
    assert_error(answer, 415, "compressed_body")
    assert f"Content-Encoding '{encoding}'" in answer.json()["error"]["message"]


def test_a_body_that_is_not_compressed_may_say_so(server: RunningServer) -> None:
    assert_error(send(server, b"abc", "image/png", Content_Encoding="identity"), 415, "not_an_image")


def test_no_url_is_fetched(server: RunningServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        assert_error(send(server, *json_of(url)), 400, "url_not_fetched")
        with pytest.raises(BlockingIOError):  # nobody has connected
            listener.accept()


def test_a_form_is_the_same_wherever_it_is_cut_for_searching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_PIECE", 13)
    choices = random.Random(0)
    for length in range(400):
        data = bytes(choices.choices(b"-b\r\n", k=length))
        if b"\n--b" in b"\n" + data:
            continue
        body = b"before\r\n" * (length % 3) + part('form-data; name="image"; filename="a"', data) + END
        assert [one.data for one in parts(body, "b")] == [data]
    with pytest.raises(RequestError):
        list(parts(IMAGE, "b"))


def noise(highest: int) -> np.ndarray:
    """An image in which nothing is found, so that /upload answers the picture that was decoded."""
    return np.random.default_rng(0).integers(0, highest + 1, (60, 80, 3), np.uint8)


def test_stretch(server: RunningServer) -> None:
    image = noise(100)
    means = [image.mean()]
    for stretch in ("minmax", "percentile"):
        answer = server.post(f"/upload?stretch={stretch}", png(image))
        drawn = np.array(Image.open(io.BytesIO(answer.content)))
        assert (drawn.min(), drawn.max()) == (0, 255)
        means.append(drawn.mean())
    assert means[1] == pytest.approx(means[0] * 2.55, abs=0.5)


QUERIES = {
    "points_per_sides=8": ("unknown_parameter", "'points_per_sides' does not exist. Known parameters: counts, "),
    "points_per_side=8.5": ("invalid_parameter", "points_per_side must be a whole number from 1 to 64, not '8.5'"),
    "format=rle": ("unknown_parameter", "'format' does not exist"),
    "stretch=minmax&Stretch=minmax": ("unknown_parameter", "'Stretch'"),
    "stretch=none": ("invalid_parameter", "stretch must be minmax or percentile, not 'none'"),
    "stretch": ("invalid_parameter", "stretch must be minmax or percentile, not ''"),
    "stretch=minmax&stretch=minmax": ("invalid_parameter", "stretch comes more than once"),
    "%ff=1": ("unknown_parameter", "does not exist"),
    "a" * 5000: ("unknown_parameter", f"'{'a' * 60}...'"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_no_parameter_is_ignored(server: RunningServer, query: str) -> None:
    code, sentence = QUERIES[query]
    for path in ("/upload", "/upload_rle"):
        answer = server.post(f"{path}?{query}", PICTURE)
        assert_error(answer, 400, code)
        assert sentence in answer.json()["error"]["message"]


def test_json_of_many_keys_is_refused_at_once(server: RunningServer) -> None:
    """Not after a search of the body for each of them."""
    keys = {f"k{i}": 1 for i in range(20_000)}
    body = orjson.dumps({"image": "A" * (8 << 20), **keys, "z": ["a", "b"]})
    begun = time.monotonic()
    assert_error(send(server, body, "application/json"), 400, "unknown_parameter")
    assert time.monotonic() - begun < 2


def test_a_large_body_in_json(server: RunningServer) -> None:
    """It is decoded whole, in pieces: the decoder sees a file that is none."""
    assert_error(send(server, *json_of(base64.b64encode(bytes(40 << 20)).decode())), 415, "not_an_image")
