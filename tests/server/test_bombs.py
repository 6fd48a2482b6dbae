"""A real server under images that are small to send and dear to decode: bounded memory, answers in time, and
a photograph beside them that is answered as it is alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from helpers import RunningServer, start_server

from bench.harness.image_bombs import bombs
from bench.harness.vitals import descendants, memory_of
from sam2_amg.demo import PHOTOGRAPHS

DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()
FLAGS = ("--device", "cpu", "--points_per_side", "1", "--pred_iou_thresh", "0.3", "--stability_score_thresh", "0.3")


@contextmanager
def measured(process: int) -> Iterator[list[float]]:
    """The most MiB that a process and all of its children take meanwhile, in a list of one."""
    most, done = [memory_of(process)], threading.Event()

    def watch() -> None:
        while not done.wait(0.03):
            most[0] = max(most[0], memory_of(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def post(server: RunningServer, data: bytes) -> tuple[int, float, bytes]:
    """Status, seconds and body."""
    begun = time.monotonic()
    answer = server.post("/upload_rle", data, timeout=600)
    assert answer.status_code != 503 or int(answer.headers["Retry-After"]) >= 1
    return answer.status_code, time.monotonic() - begun, answer.content


def bombard(
    side: int, repeats: int, names: set[str], sixteen: set[str], mib: float, seconds: float, *flags: str
) -> dict[str, str]:
    """Posts each bomb four times at once, and some sixteen times, with a photograph beside them; what was answered."""
    seen: dict[str, str] = {}
    server = start_server(*FLAGS, "--queue_size", "32", "--decode_timeout", str(seconds), *flags)
    try:
        assert len(descendants(server.process.pid)) >= 3  # the server, the fork server and a decoder
        alone = post(server, DOG)[2]
        assert len(alone) > 100  # masks were found
        for name, (data, statuses) in bombs(side, repeats).items():
            if name not in names:
                continue
            for count in (4, 16) if name in sixteen else (4,):
                with ThreadPoolExecutor(count + 1) as clients, measured(server.process.pid) as most:
                    posted = [clients.submit(post, server, data) for _ in range(count)]
                    beside = clients.submit(post, server, DOG)
                    answers = [each.result() for each in posted]
                    assert beside.result()[0] == 200, name
                    assert beside.result()[2] == alone, name
                spans = sorted((status, round(spent, 1)) for status, spent, _ in answers)
                seen[f"{name} x {count}"] = f"{spans}, {most[0]:.0f} MiB"
                assert {status for status, _, _ in answers} <= statuses | {503, 504}, seen
                assert any(status in statuses for status, _, _ in answers), seen
                assert all(spent < seconds + 5 for status, spent, _ in answers if status != 200), seen
                assert most[0] < mib, seen
        assert server.get("/info").json()["queue"]["taken"] == 0
        assert server.stop() == 0
    finally:
        server.process.kill()
        assert server.process.stdout is not None
        server.process.stdout.close()
    return seen


def test_bombs_of_a_smaller_size() -> None:
    """As many bytes are free as two of the images need."""
    names = {"webp_rgba", "rgba16", "scans", "comments"}
    seen = bombard(1024, 1, names, {"rgba16"}, 1200, 2, "--max_decoded_mib", "23")
    assert "503" in seen["rgba16 x 16"]
    assert "413" in seen["webp_rgba x 4"]


@pytest.mark.slow
def test_bombs_of_full_size() -> None:
    names = set(bombs(16))
    seen = bombard(8192, 10, names, {"webp_rgba", "rgba16"}, 3072, 10)
    print("\n".join(f"{name}: {answers}" for name, answers in seen.items()))
    assert "503" in seen["rgba16 x 16"]
    assert "200" in seen["webp_rgba x 4"]  # it takes nearly all of --max_decoded_mib
