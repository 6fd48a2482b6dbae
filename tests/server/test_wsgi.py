"""What a server process does under overload and at its end."""

from __future__ import annotations

import io
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from helpers import LENIENT, RunningServer, start_server, wait_until
from PIL import Image

from sam2_amg.agreement import compare_images, parse_masks
from sam2_amg.demo import PHOTOGRAPHS

GROCERIES = (PHOTOGRAPHS / "groceries.jpg").read_bytes()


def taken(server: RunningServer) -> int:
    return requests.get(server.url + "/info", timeout=10).json()["queue"]["taken"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_was_accepted(number: signal.Signals) -> None:
    server = start_server("--points_per_side", "10")
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(server.post, "/upload_rle", GROCERIES) for _ in range(4)]
        wait_until(lambda: taken(server) == 4)
        server.process.send_signal(number)
        responses = [future.result() for future in accepted]
    assert [response.status_code for response in responses] == [200] * 4
    assert len({response.text for response in responses}) == 1
    assert server.process.wait(30) == 0
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(server.url + "/healthz", timeout=5)
    server.process.stdout.close()


def test_a_draining_server_refuses_connections() -> None:
    server = start_server("--points_per_side", "16")
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.post, "/upload_rle", GROCERIES)
        wait_until(lambda: taken(server) == 1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not connects(server), 5)
        assert server.process.poll() is None
        assert accepted.result().status_code == 200
    assert server.process.wait(30) == 0
    server.process.stdout.close()


def connects(server: RunningServer) -> bool:
    address = urlsplit(server.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it had come in, and nobody took it
        return False
    return True


def test_a_client_that_does_not_read_its_answer_does_not_keep_the_server() -> None:
    server = start_server("--points_per_side", "2")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)).save(buffer, "JPEG")
    address = urlsplit(server.url)
    request = requests.Request("POST", server.url + "/upload", files={"image": buffer.getvalue()}).prepare()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(f"POST /upload HTTP/1.1\r\nHost: test\r\n{head}\r\n".encode() + request.body)
        assert connection.recv(10) == b"HTTP/1.1 2"  # some 27 MB are to follow
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == 0
    server.process.stdout.close()


def test_an_idle_server_stops_at_once() -> None:
    server = start_server()
    with requests.Session() as session:  # an idle connection that is kept open
        session.get(server.url + "/healthz", timeout=10)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 10
    server.process.stdout.close()


def test_a_full_queue_answers_503_and_when_to_come_back() -> None:
    server = start_server("--queue_size", "2", "--points_per_side", "16")
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.post, "/upload_rle", GROCERIES) for _ in range(2)]
        wait_until(lambda: taken(server) == 2)
        refused = [server.post(path, GROCERIES) for path in ("/upload", "/upload_rle")]
        assert requests.get(server.url + "/healthz", timeout=10).status_code == 200
        for response in refused:
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "queue_full"
            assert int(response.headers["Retry-After"]) >= 1
        assert [future.result().status_code for future in accepted] == [200, 200]
    assert server.post("/upload_rle", GROCERIES).status_code == 200
    assert server.stop() == 0
    server.process.stdout.close()


def test_a_deadline_answers_504() -> None:
    server = start_server("--request_timeout", "0.05")
    response = server.post("/upload_rle", GROCERIES)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert server.stop() == 0
    server.process.stdout.close()


def test_baseline_and_ao_find_the_same() -> None:
    answers = []
    for flags in (["--baseline"], []):
        server = start_server("--points_per_side", "6", *LENIENT, *flags)
        answers.append(server.post("/upload_rle", GROCERIES).json())
        assert server.stop() == 0
        server.process.stdout.close()
    baseline, ao = (parse_masks(json.dumps(answer).encode()) for answer in answers)
    assert len(baseline.areas) >= 3
    assert compare_images(baseline, ao).score >= 0.9999
