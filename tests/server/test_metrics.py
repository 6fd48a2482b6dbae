"""What the server counts, against a counted load; where a request is; and how its log reads."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from helpers import ROOT, RunningServer, start_server, wait_until
from prometheus_client.parser import text_string_to_metric_families

from sam2_amg.demo import PHOTOGRAPHS

DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()


def metrics_of(server: RunningServer) -> dict[str, float]:
    """name{label=value,...} -> value."""
    families = text_string_to_metric_families(server.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for sample in samples
    }


@pytest.fixture(scope="module")
def own_server() -> Iterator[RunningServer]:
    """A server that nobody else asks."""
    server = start_server("--device", "cpu", "--points_per_side", "2", "--log_format", "json")
    yield server
    assert server.stop() == 0
    server.process.stdout.close()


pytestmark = pytest.mark.xdist_group("metrics")


def test_metrics_are_those_of_the_load(own_server: RunningServer) -> None:
    before = metrics_of(own_server)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: own_server.post("/upload_rle", DOG), range(3)))
    assert own_server.post("/upload", DOG).status_code == 200
    assert own_server.post("/upload", b"no image").status_code == 415
    assert own_server.get("/nowhere").status_code == 404
    after = metrics_of(own_server)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["sam2_amg_requests_total route=upload_rle status=200"] == 3
    assert grown["sam2_amg_requests_total route=upload status=200"] == 1
    assert grown["sam2_amg_requests_total route=upload status=415"] == 1
    assert grown["sam2_amg_requests_total route=none status=404"] == 1
    assert grown["sam2_amg_images_total"] == 4
    masks = sum(len(answer.json()) for answer in answers) * 4 // 3
    assert grown["sam2_amg_masks_total"] == masks
    assert grown["sam2_amg_request_seconds_count route=upload_rle"] == 3
    for stage in ("decode", "queue", "segment", "answer"):
        assert grown[f"sam2_amg_stage_seconds_count stage={stage}"] == (5 if stage == "decode" else 4), stage
    taken = grown["sam2_amg_stage_seconds_sum stage=segment"]
    assert 0 < taken < grown["sam2_amg_request_seconds_sum route=upload_rle"] + 60
    assert (after["sam2_amg_in_flight"], after["sam2_amg_waiting"], after["sam2_amg_ready"]) == (0, 0, 1)
    assert (after["sam2_amg_workers"], after["sam2_amg_queue_size"], after["sam2_amg_retries_total"]) == (1, 16, 0)


def test_an_answer_tells_where_its_time_went(own_server: RunningServer) -> None:
    began = time.monotonic()
    answer = own_server.post("/upload_rle", DOG)
    milliseconds = (time.monotonic() - began) * 1e3
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"]))
    assert list(stages) == ["receive", "decode", "queue", "segment", "answer"]
    assert sum(map(float, stages.values())) <= milliseconds


def test_a_request_can_be_asked_for_and_cancelled(own_server: RunningServer) -> None:
    """Three wait for one worker: the last is cancelled, and its client is told."""

    def send(name: str) -> requests.Response:
        files, headers = {"image": DOG}, {"X-Request-ID": name}
        return requests.post(f"{own_server.url}/upload_rle", files=files, headers=headers, timeout=60)

    def state(name: str) -> dict:
        return own_server.get(f"/requests/{name}").json()

    assert own_server.get("/requests/unknown").status_code == 404
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, f"r{index}") for index in range(8)]
        wait_until(lambda: sum(state(f"r{index}").get("state") == "queued" for index in range(8)) >= 4)
        queued = [name for name in (f"r{index}" for index in range(8)) if state(name).get("place") is not None]
        last = max(queued, key=lambda name: state(name).get("place") or 0)
        twin = send(last)
        assert (twin.status_code, twin.json()["error"]["code"]) == (409, "request_id_in_use")
        cancelled = requests.delete(f"{own_server.url}/requests/{last}", timeout=10).json()
        answers = {f"r{index}": one.result() for index, one in enumerate(sent)}
    assert cancelled["state"] == "cancelled"
    assert answers[last].status_code == 503
    assert answers[last].json()["error"]["code"] == "cancelled"
    others = [answer for name, answer in answers.items() if name != last]
    assert [answer.status_code for answer in others] == [200] * 7
    assert {name: state(name)["state"] for name in answers if name != last} == dict.fromkeys(
        set(answers) - {last}, "done"
    )


def test_of_two_bodies_that_come_at_once_one_has_the_id(own_server: RunningServer) -> None:
    address = urlsplit(own_server.url)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((address.hostname, address.port))) for _ in "ab"]
        head = "POST /upload_rle?points_per_side=16 HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: both\r\n"
        head += f"Content-Length: {len(DOG)}\r\nContent-Type: image/jpeg\r\nConnection: close\r\n\r\n"
        for client in clients:
            client.settimeout(60)
            client.sendall(head.encode() + DOG[:-1])
        for client in clients:
            client.sendall(DOG[-1:])
        statuses = sorted(int(client.makefile("rb").readline().split()[1]) for client in clients)
    assert statuses == [200, 409]


def test_the_log_is_json(tmp_path: Path) -> None:
    """A line an event, of the access log and of all others."""
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "server.py", "--device", "cpu", "--port", "0", "--points_per_side", "1"]
        process = subprocess.Popen(
            [*command, "--log_format", "json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        requests.get(f"{url}/info", headers={"X-Request-ID": "abc"}, timeout=10)
        requests.get(f"{url}/x%0aFORGED%1b", timeout=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    access, forged = (line for line in lines if line["logger"] == "sam2_amg.access")
    assert "/x%0AFORGED%1B" in forged["message"]
    assert (access["method"], access["path"], access["status"], access["request_id"]) == ("GET", "/info", 200, "abc")
    assert access["milliseconds"] > 0
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
