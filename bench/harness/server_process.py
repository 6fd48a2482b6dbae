"""The product's server as a process, with replicas or without."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from bench import ROOT
from bench.harness.failures import WorkerFailed

_ENDS = 40.0  # seconds after SIGTERM
_LINES = 6  # of the log, that are told if the server fails


@dataclass(frozen=True)
class Server:
    """A server that is ready. `replicas` is 0 without Ray."""

    port: int
    process: int
    replicas: int
    seconds_to_ready: float


@contextmanager
def running(
    program: Sequence[str], flags: Sequence[str], port: int, replicas: int, patience: float
) -> Iterator[Server]:
    """Python runs `program` with the server's `flags` until the end of the block, which begins once all replicas
    answer. Raises WorkerFailed, with the end of the log, if they do not within `patience` seconds."""
    more = ["--replicas", str(replicas)] if replicas else []
    command = [sys.executable, *program, *flags, *more, "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        try:
            while (missing := what_is_missing(f"http://127.0.0.1:{port}", replicas)) is not None:
                if process.poll() is not None or time.monotonic() - started > patience:
                    ended = process.poll() is not None
                    why = f"ended with status {process.poll()}" if ended else f"is not ready after {patience:.0f} s"
                    shown = shlex.join(["python", *command[1:]])
                    raise WorkerFailed(f"the server {why} ({missing}): {shown}\n{_end_of(log)}")
                time.sleep(0.1)
            try:
                yield Server(port, process.pid, replicas, time.monotonic() - started)
            except WorkerFailed as error:
                state = "it runs" if process.poll() is None else f"it ended with status {process.poll()}"
                raise WorkerFailed(f"{error}\nthe server, {state}: {_end_of(log)}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_ENDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def what_is_missing(url: str, replicas: int) -> str | None:
    """What the server does before all replicas answer; None if they do."""
    try:
        answer = requests.get(f"{url}/readyz", timeout=10)
        if answer.status_code != 200:
            return str(answer.json()["error"]["message"])
        info = requests.get(f"{url}/info", timeout=10).json() if replicas else {}
    except requests.RequestException:
        return "it does not listen yet"
    states = [str(each["state"]) for each in info.get("replicas", [])]
    return None if states.count("ready") >= replicas else f"replicas: {', '.join(states)}, of {replicas}"


def _end_of(log: Any) -> str:
    log.seek(0)
    return "\n".join([line.rstrip() for line in log if line.strip()][-_LINES:])
