"""Clients in a process of their own, so that they take no time of the process that is measured.

`run_clients` starts it. It says what it found as JSON on standard output.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import ROOT
from bench.harness.failures import WorkerFailed
from bench.harness.vitals import cpu_seconds

_TIMEOUT = 300.0  # seconds, for one answer
UPLOAD = "/upload_rle"
_BOUNDARY = "photograph"


@dataclass(frozen=True)
class Load:
    """What clients send, and for how long: each sends the `files` in turn over a connection that stays open.

    `process` is that of the server, whose CPU time is measured. Seconds of `warm_up` are not.
    """

    port: int
    process: int
    files: list[str]
    clients: int
    seconds: float
    warm_up: float
    route: str = UPLOAD


class Clients:
    """All clients of a load, each in a thread."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.bodies = [form_of(Path(path).read_bytes()) for path in load.files]
        self.answers: list[tuple[float, float, int]] = []  # (when it was there, milliseconds, number of the file)
        self.ended = threading.Event()

    def run(self) -> dict[str, Any]:
        """What was seen between warm-up and end. Raises WorkerFailed for an answer that is not 200."""
        load = self.load
        with ThreadPoolExecutor(load.clients) as pool:
            running = [pool.submit(self._send, index) for index in range(load.clients)]
            self.ended.wait(load.warm_up)
            begun, used = time.perf_counter(), cpu_seconds(load.process)
            self.ended.wait(load.seconds)
            seconds, used = time.perf_counter() - begun, cpu_seconds(load.process) - used
            self.ended.set()
            for task in running:
                task.result()
        answers = [each for each in self.answers if begun <= each[0] < begun + seconds]
        return figures_of(answers, seconds, used, len(load.files))

    def _send(self, index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.load.port, timeout=_TIMEOUT)
        try:
            while not self.ended.is_set():
                index = (index + 1) % len(self.bodies)
                elapsed, _ = exchange(connection, self.bodies[index], self.load.route)
                self.answers.append((time.perf_counter(), elapsed, index))
        finally:
            self.ended.set()  # one that fails ends all
            connection.close()


def form_of(data: bytes) -> bytes:
    """The body of a multipart form with one file."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photograph.jpg"\r\n'
    return (head + "Content-Type: image/jpeg\r\n\r\n").encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


def exchange(connection: http.client.HTTPConnection, body: bytes, route: str = UPLOAD) -> tuple[float, bytes]:
    """Posts a form. Milliseconds until the whole answer is there, and the answer. Raises WorkerFailed for none, and for
    another status than 200."""
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    begun = time.perf_counter()
    try:
        connection.request("POST", route, body, headers)
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise WorkerFailed(f"no answer: {error!r}") from error
    elapsed = (time.perf_counter() - begun) * 1e3
    if response.status != 200:
        raise WorkerFailed(f"status {response.status}: {data[:200].decode(errors='replace')}")
    return elapsed, data


def figures_of(answers: list[tuple[float, float, int]], seconds: float, used: float, files: int) -> dict[str, Any]:
    """A rate, percentiles, the median by file, and what the server's process used of CPUs. Raises WorkerFailed if a
    file has no answer."""
    by_file = [[ms for _, ms, index in answers if index == number] for number in range(files)]
    if not all(by_file):
        raise WorkerFailed(f"not every file was answered within {seconds:.0f} s; give more --seconds")
    times = [ms for _, ms, _ in answers]
    return {
        "images": len(times),
        "images_per_second": round(len(times) / seconds, 3),
        **{f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 90, 99)},
        "p50_by_image": [round(float(np.median(each)), 2) for each in by_file],
        "cpu_ms_an_image": round(used * 1e3 / len(times), 3),
        "cpu_share": round(used / seconds, 3),
    }


def run_clients(load: Load) -> dict[str, Any]:
    """What the clients saw. Raises WorkerFailed."""
    command = [sys.executable, "-m", "bench.harness.clients", json.dumps(asdict(load))]
    patience = load.warm_up + load.seconds + 2 * _TIMEOUT
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise WorkerFailed(lines[-1] if lines else f"clients ended with status {done.returncode}")
    return dict(json.loads(done.stdout))


def main() -> None:
    """Runs the load that the first argument describes."""
    try:
        print(json.dumps(Clients(Load(**json.loads(sys.argv[1]))).run()))
    except WorkerFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
