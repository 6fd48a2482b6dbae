"""What a server process does under overload and at its end."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from helpers import DEVICE, LENIENT, RunningServer, assert_error, start_server, wait_until
from local_server import serving

from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.config import Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.pipeline.base import Generator

GROCERIES = (PHOTOGRAPHS / "groceries.jpg").read_bytes()
BUSY = "6" if DEVICE.type == "cpu" else "32"  # points that keep a server busy for a second or so


def taken(server: RunningServer) -> int:
    return requests.get(server.url + "/info", timeout=10).json()["queue"]["taken"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_full_queue_refuses_and_a_signal_finishes_what_was_accepted(number: signal.Signals) -> None:
    server = start_server("--queue_size", "2", "--points_per_side", BUSY)
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.post, "/upload_rle", GROCERIES) for _ in range(2)]
        wait_until(lambda: taken(server) == 2)
        refused = [server.post(path, GROCERIES) for path in ("/upload", "/upload_rle")]
        assert requests.get(server.url + "/healthz", timeout=10).status_code == 200
        for response in refused:
            assert_error(response, 503, "queue_full")
            assert int(response.headers["Retry-After"]) >= 1
        assert taken(server) >= 1
        server.process.send_signal(number)
        wait_until(lambda: not connects(server), 5)
        assert server.process.poll() is None
        responses = [future.result() for future in accepted]
    assert [response.status_code for response in responses] == [200] * 2
    assert len({response.text for response in responses}) == 1
    assert server.process.wait(30) == 0
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(server.url + "/healthz", timeout=5)
    server.process.stdout.close()


def connects(server: RunningServer) -> bool:
    address = urlsplit(server.url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it had come in, and nobody took it
        return False
    return True


def test_a_deadline_answers_504(small_generator: Generator, decoders: DecoderPool) -> None:
    with serving(small_generator, decoders, Limits(request_timeout=0.05)) as server:
        answer = requests.post(f"{server.url}/upload_rle?points_per_side=12", files={"image": GROCERIES}, timeout=30)
    assert_error(answer, 504, "timeout")


@pytest.mark.slow  # what both find is compared with fewer starts, in test_published.py and test_generator.py
@pytest.mark.xdist_group("server")
def test_baseline_and_ao_find_the_same(server: RunningServer) -> None:
    """And the one of baseline, which is idle, stops at once, whoever keeps a connection open."""
    points = str(server.get("/info").json()["parameters"]["points_per_side"])
    other = start_server("--baseline", "--points_per_side", points, *LENIENT)
    with requests.Session() as session:
        answers = [
            parse_masks(session.post(one.url + "/upload_rle", files={"image": GROCERIES}, timeout=120).content)
            for one in (server, other)
        ]
        started = time.monotonic()
        assert other.stop() == 0
        assert time.monotonic() - started < 10
    other.process.stdout.close()
    ao, baseline = answers
    assert len(baseline.areas) >= 3
    assert compare_images(baseline, ao).score >= 0.9999


def test_a_drain_that_runs_out_of_time_ends_the_process() -> None:
    """An image that takes minutes is given up: its client gets 503, and the process ends with 0."""
    server = start_server("--points_per_side", "100", "--drain_timeout", "1")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/upload_rle", GROCERIES)
        wait_until(lambda: taken(server) == 1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert answer.result().json()["error"]["code"] == "shutting_down"
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 8
    server.process.stdout.close()
