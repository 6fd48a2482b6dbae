"""Load over HTTP: a worker process on one side, clients in threads on the other."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from bench import ROOT
from bench.harness.clients import UPLOAD, exchange, form_of
from bench.harness.failures import WorkerFailed
from bench.harness.worker import Job

__all__ = ["Worker", "WorkerFailed", "post", "run_load", "serving"]
_TIMEOUT = 900.0  # seconds, for one answer


class Worker:
    """A worker process, from its start to its end."""

    def __init__(self, job: Job, caches: Path, environment: Mapping[str, str] | None = None) -> None:
        """Starts it. Compilers keep their caches in `caches`."""
        self.started = time.monotonic()
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the process has ended
        environment = {
            **os.environ,
            **(environment or {}),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
        }
        command = [sys.executable, "-m", "bench.harness.worker", json.dumps(asdict(job))]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,  # which it reads the end of when this process is gone
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Waits until it serves, at `url`, after `seconds_to_ready`. Raises WorkerFailed where it does not."""
        assert self.process.stdout is not None
        try:
            line = self.process.stdout.readline()
        except BaseException:  # in a session of its own, it does not hear Ctrl-C
            self.kill()
            raise
        self.seconds_to_ready = time.monotonic() - self.started
        if not line.startswith("READY"):
            if line:
                self.process.kill()
            self.finish()
            raise WorkerFailed(f"it said {line.strip()!r} instead of READY")
        self.url = f"http://127.0.0.1:{line.split()[1]}"

    def stop_serving(self) -> None:
        """Lets it answer what it accepted, and go on to what comes after serving."""
        self.process.send_signal(signal.SIGTERM)

    def finish(self) -> None:
        """Waits for its end. Raises WorkerFailed with the last line of its log where it failed."""
        status = self.process.wait()
        self._close_pipes()
        self.log.seek(0)
        lines = [line for line in self.log.read().splitlines() if line.strip()]
        self.log.close()
        if status != 0:
            raise WorkerFailed(lines[-1] if lines else f"exit status {status}")

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()
        self.log.close()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


@contextmanager
def serving(job: Job, caches: Path) -> Iterator[Worker]:
    """A worker that serves; at the end of the block it goes on to what comes after serving, and to its end. Raises
    WorkerFailed. It is killed if the block raises."""
    worker = Worker(job, caches)
    worker.wait_until_ready()
    try:
        yield worker
        worker.stop_serving()
        worker.finish()
    except BaseException:
        worker.kill()
        raise


def post(url: str, data: bytes, route: str = UPLOAD) -> tuple[float, bytes]:
    """Milliseconds until the masks of an image are there, and the answer. Over a connection of its own, as from curl;
    the form is made before. Raises WorkerFailed."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT)
    try:
        return exchange(connection, form_of(data), route)
    finally:
        connection.close()


def run_load(
    url: str, images: Sequence[bytes], repeat: int, concurrency: int, label: str, route: str = UPLOAD
) -> tuple[dict[str, Any], list[bytes]]:
    """Posts all images in turn, `repeat` times, from `concurrency` clients; what it took, and the answers in order."""
    started = time.perf_counter()
    count = len(images) * repeat
    with ThreadPoolExecutor(concurrency) as pool:
        answers = list(
            tqdm(
                pool.map(lambda data: post(url, data, route), [*images] * repeat),
                total=count,
                desc=f"{label} x{concurrency}",
                unit="request",
                disable=None,
            )
        )
    seconds = time.perf_counter() - started
    times = np.array([elapsed for elapsed, _ in answers])
    percentiles = {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 90, 99)}
    spread = {"min": round(float(times.min()), 2), "max": round(float(times.max()), 2)}
    figures: dict[str, Any] = {"requests": count, **percentiles, "mean": round(float(times.mean()), 2), **spread}
    figures["images_per_second"] = round(count / seconds, 3)
    if repeat > 1:
        medians = np.median(times.reshape(repeat, len(images)), axis=0)
        figures["p50_by_image"] = [round(float(median), 2) for median in medians]
    return figures, [answer for _, answer in answers]
