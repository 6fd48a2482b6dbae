"""All kinds of bad clients at once, against a real server process with few descriptors: health and answers go on."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from helpers import RunningServer, start_server, wait_until

from bench.harness import hostile
from bench.harness.vitals import descriptors
from sam2_amg.demo import PHOTOGRAPHS

DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()
_FILES = 1024  # ulimit -n of many systems


def health(server: RunningServer) -> float:
    """Seconds until /healthz says 200 on a new connection."""
    began = time.monotonic()
    assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
    return time.monotonic() - began


def test_bad_clients_of_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 connections say nothing, 40 uploads stop, others trickle, leave, send nonsense or broken files."""
    monkeypatch.setattr(hostile, "_HOLD", 2.0)
    command = ("prlimit", f"--nofile={_FILES}", sys.executable, "server.py")
    server = start_server("--device", "cpu", "--points_per_side", "1", command=command)
    address = urlsplit(server.url)
    target = (address.hostname or "", address.port or 0)
    expected = server.post("/upload_rle", DOG).content
    opened = descriptors(server.process.pid)
    kinds = hostile.kinds(DOG)
    clients = [name for name in kinds if name not in ("bombs",)] + ["idle", "idle", "unfinished"]
    with ThreadPoolExecutor(len(clients)) as pool:
        under_way = [pool.submit(kinds[name], target) for name in clients]
        wait_until(lambda: descriptors(server.process.pid) > opened + 300)
        slowest = 0.0
        while not all(task.done() for task in under_way):
            slowest = max(slowest, health(server))
            answer = server.post("/upload_rle", DOG)
            assert answer.status_code in (200, 503)
            assert answer.status_code == 503 or answer.content == expected
            time.sleep(0.5)
        for task in under_way:
            task.result()
    assert slowest < 1
    wait_until(lambda: descriptors(server.process.pid) <= opened + 2)
    assert server.post("/upload_rle", DOG).content == expected
    assert server.stop() == 0
    server.process.stdout.close()
