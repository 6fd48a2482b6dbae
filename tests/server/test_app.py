"""The HTTP interface: a real server process with the real demo model, asked over real sockets."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from helpers import CPU, RunningServer, assert_error, drawn_image, photograph, png
from PIL import Image
from pycocotools import mask as coco_mask
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.config import AGREEMENT_SOURCE, GeneratorConfig, Limits, Mode
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.errors import RequestError
from sam2_amg.modes.build import build_generator
from sam2_amg.server.segmenting import in_turn
from sam2_amg.server.ticket import Ticket

pytestmark = pytest.mark.xdist_group("server")  # for one server is enough
DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()


def test_the_greeting_names_the_address_and_a_curl_line_that_works(server: RunningServer, tmp_path: Path) -> None:
    assert server.url in server.greeting
    command = server.greeting.split("Try it:")[1].strip().replace("masks.png", str(tmp_path / "masks.png"))
    subprocess.run(f"{command} -sS --fail", shell=True, check=True, timeout=60)
    with Image.open(tmp_path / "masks.png") as drawn:
        assert drawn.size == (800, 534)


def test_rles_are_those_of_the_generator(
    server: RunningServer, demo_model: SAM2Base, demo_config: GeneratorConfig
) -> None:
    response = server.post("/upload_rle", DOG)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.text.count("\n") == 1
    assert response.text.endswith("\n")
    generator = build_generator(demo_model, Mode.AO, replace(demo_config, points_per_side=4), CPU)
    records = generator.generate(photograph("dog"))
    assert response.json() == rles_by_name(records)
    assert len(records) >= 4
    for i, record in enumerate(records):
        mask = coco_mask.decode(coco_mask.frPyObjects(response.json()[f"mask_{i}"], 534, 800))
        assert mask.sum() == record["area"]
        x, y, width, height = map(int, record["bbox"])
        rows, columns = mask.nonzero()
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max(), rows.max()) == (x + width, y + height)


def test_overlay_has_the_size_of_the_input_and_masks_on_it(server: RunningServer) -> None:
    response = server.post("/upload", DOG)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/png"
    drawn = np.array(Image.open(io.BytesIO(response.content)))
    image = photograph("dog")
    assert drawn.shape == image.shape
    assert (drawn != image).any(axis=2).mean() > 0.2
    assert server.post("/upload", DOG).content == response.content


def test_an_image_is_answered_upright(server: RunningServer) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    buffer = io.BytesIO()
    Image.fromarray(drawn_image(40, 90)).save(buffer, "PNG", exif=exif)
    assert Image.open(io.BytesIO(server.post("/upload", buffer.getvalue()).content)).size == (40, 90)


def test_nothing_found_is_an_empty_object_and_the_photograph(server: RunningServer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    assert server.post("/upload_rle", png(noise)).content == b"{}\n"
    drawn = Image.open(io.BytesIO(server.post("/upload", png(noise)).content))
    assert np.array_equal(np.array(drawn), noise)


def test_many_at_once_get_their_own_answers(server: RunningServer) -> None:
    images = [png(drawn_image(40 + 7 * i, 150 - 9 * i, seed=i)) for i in range(4)]
    alone = [server.post("/upload_rle", image).json() for image in images]
    assert len({json.dumps(answer) for answer in alone}) > 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: server.post("/upload_rle", image).json(), images))
    for answers in zip(together, alone, strict=True):  # sums of several images may round otherwise than those of one
        sides = [parse_masks(json.dumps(answer).encode()) for answer in answers]
        assert compare_images(*sides).score >= 0.999
        assert len(answers[0]) == len(answers[1])


def test_healthz_and_info(server: RunningServer) -> None:
    assert requests.get(server.url + "/healthz", timeout=10).json() == {"status": "ok"}
    info = requests.get(server.url + "/info", timeout=10).json()
    assert (info["model"], info["mode"], info["device"]) == ("demo", "ao", "cpu")
    assert info["agreement"] == {"with_baseline": Mode.AO.agreement, "source": AGREEMENT_SOURCE}
    assert info["parameters"]["points_per_side"] == 4
    assert info["limits"]["queue_size"] == info["queue"]["size"] == 16
    assert info["versions"]["sam2"] == "1.1.0"


BAD = {
    "no image": (b"this is text", 415, "not_an_image"),
    "empty": (b"", 400, "empty_body"),
    "truncated": (DOG[:50_000], 400, "truncated_image"),
    "too many pixels": (png(np.zeros((1, 16385, 3), np.uint8)), 413, "too_many_pixels"),
}


@pytest.mark.parametrize("path", ["/upload", "/upload_rle"])
@pytest.mark.parametrize("name", BAD)
def test_bad_images(server: RunningServer, path: str, name: str) -> None:
    data, status, code = BAD[name]
    assert_error(server.post(path, data), status, code)


@pytest.mark.parametrize("path", ["/upload", "/upload_rle"])
def test_bad_requests(server: RunningServer, path: str) -> None:
    url = server.url + path
    assert_error(requests.post(url, timeout=10), 400, "empty_body")
    response = requests.get(url, timeout=10)
    assert_error(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


def test_wrong_path(server: RunningServer) -> None:
    assert_error(requests.post(server.url + "/uplaod", files={"image": DOG}, timeout=10), 404, "not_found")
    assert_error(requests.post(server.url + "/healthz", timeout=10), 405, "method_not_allowed")


@pytest.mark.parametrize("mib", [65, 300])
def test_too_large_bodies(server: RunningServer, mib: int) -> None:
    """A little too large is read to its end and refused; far too large is refused from its announcement."""
    address = urlsplit(server.url)
    size = mib << 20
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        head = f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        if mib == 65:
            for _ in range(mib):
                connection.sendall(b"x" * (1 << 20))
        answer = b""
        while b"}}" not in answer:
            received = connection.recv(65536)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"code":"body_too_large","message":"The body is over the limit of 64 MiB (--max_body_mib)."}' in answer


GARBAGE = [
    b"NONSENSE\r\n\r\n",
    b"POST /upload HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
    b"GET http://[x/info HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_malformed_http(server: RunningServer, garbage: bytes) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(garbage)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))  # until the server closes the connection
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "bad_request"


def test_a_client_that_goes_away_harms_nobody(server: RunningServer) -> None:
    address = urlsplit(server.url)
    for sent in (b"POST /upl", b"POST /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabc"):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(sent)
    with pytest.raises(requests.exceptions.ReadTimeout):
        server.post("/upload", DOG, timeout=0.05)
    assert server.post("/upload_rle", DOG).status_code == 200


def test_a_request_does_not_wait_for_its_overlay_beyond_its_time() -> None:
    lock = threading.Lock()
    with lock, pytest.raises(RequestError, match="No answer within 600 s"):  # noqa: SIM117
        with in_turn(lock, Ticket(time.monotonic() + 0.05), Limits()):
            raise AssertionError("two at a time")
    with in_turn(lock, Ticket(), Limits()):
        assert lock.locked()
    assert not lock.locked()
