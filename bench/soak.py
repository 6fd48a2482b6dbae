"""Good and bad clients at once, for a while: `python -m bench.soak --minutes 20`.

A server starts with the flags after `--`. Good clients send photographs and compare every answer with the first one,
alone in the first fifth of the time, then beside all kinds of bad clients (bench/harness/hostile.py). The exit status
is 1 if an answer is wrong, if descriptors are left open, if memory grows by 1 MiB a minute or more after the third
minute, or if the 99th percentile of good requests is more than twice that of the first fifth.
"""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
from tqdm import tqdm

from bench import RESULTS, ROOT, SAMPLES
from bench.harness.hostile import Address, kinds
from bench.harness.machine import machine
from bench.harness.vitals import descendants, descriptors, memory_of_one
from bench.report.pages import write
from bench.startup import free_port

_FLAGS = ["--points_per_side", "4", "--max_pixels", "4000000"]  # so that bombs are refused, not segmented
_PAUSE = (2.0, 6.0)  # seconds between two attacks of a kind
_PATIENCE = 600.0  # seconds until the server is ready
_SETTLED = 180.0  # seconds after which memory is watched
_MOST_GROWTH = 1.0  # MiB a minute
_MOST_SLOWER = 2.0  # times the p99 without bad clients
_SAMPLES_KEPT = 6  # of so many samples of memory, one is written down
_QUIET = 35.0  # seconds at the end, in which connections close


@dataclass
class Log:
    """What good clients saw, and the server's vitals. Seconds count from the start of the load."""

    latencies: list[tuple[float, float]] = field(default_factory=list)  # (when, milliseconds)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, ...]] = field(default_factory=list)  # when; MiB of the server, of each of its children
    bad: Counter[str] = field(default_factory=Counter)


class Soak:
    """A server under load."""

    def __init__(self, url: str, pid: int, seconds: float, clients: int) -> None:
        self.url, self.pid, self.seconds, self.clients = url, pid, seconds, clients
        self.log = Log()
        self.begun = 0.0
        self.ended = threading.Event()
        self.files = [path.read_bytes() for path in SAMPLES]
        self.expected = [self._post(data).content for data in self.files]
        self.bad = kinds(self.files[0])

    def _post(self, data: bytes) -> requests.Response:
        return requests.post(f"{self.url}/upload_rle", files={"image": data}, timeout=600)

    def _now(self) -> float:
        return time.monotonic() - self.begun

    def run(self) -> None:
        """Loads the server for its time."""
        self.begun = time.monotonic()
        threads = [threading.Thread(target=self._be_good, args=(index,)) for index in range(self.clients)]
        threads += [threading.Thread(target=self._be_bad, args=each) for each in self.bad.items()]
        for thread in threads:
            thread.start()
        for _ in tqdm(range(round(self.seconds / 5)), desc="load", unit="x5s", disable=None):
            time.sleep(5)
            self.log.memory.append((self._now(), *map(memory_of_one, descendants(self.pid))))
            if self.log.wrong:
                break
        self.ended.set()
        for thread in threads:
            thread.join(120)

    def _be_good(self, index: int) -> None:
        """Sends photographs in turn; a refusal for lack of room is tried again, and anything else is wrong."""
        while not self.ended.is_set():
            index = (index + 1) % len(self.files)
            begun = time.monotonic()
            try:
                answer = self._post(self.files[index])
            except requests.RequestException as error:
                self.log.wrong.append(f"no answer: {error!r}")
                return
            self.log.statuses[answer.status_code] += 1
            if answer.status_code == 503 and "Retry-After" in answer.headers:
                time.sleep(0.1)
            elif answer.content != self.expected[index]:
                self.log.wrong.append(f"status {answer.status_code}: {answer.text[:200]}")
            else:
                self.log.latencies.append((self._now(), (time.monotonic() - begun) * 1e3))

    def _be_bad(self, name: str, harm: Callable[[Address], None]) -> None:
        address = ("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        self.ended.wait(self.seconds / 5)
        while not self.ended.wait(random.uniform(*_PAUSE)):
            harm(address)
            self.log.bad[name] += 1


def slope(samples: list[tuple[float, float]]) -> float:
    """By how many MiB a minute memory grows, by least squares over (seconds, MiB); NaN for fewer than three."""
    times, sizes = np.array(samples).reshape(-1, 2).T
    return float(np.polyfit(times, sizes, 1)[0] * 60) if len(samples) > 2 else float("nan")


def verdict(log: Log, seconds: float, opened: int, left_open: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what is wrong with them."""
    alone = [ms for when, ms in log.latencies if when < seconds / 5]
    beside = [ms for when, ms in log.latencies if when >= seconds / 5]
    p99 = [float(np.percentile(each, 99)) if each else float("nan") for each in (alone, beside)]
    memory = [(when, sum(each)) for when, *each in log.memory]
    growth = slope([each for each in memory if each[0] >= (_SETTLED if seconds > 1.5 * _SETTLED else seconds / 2)])
    figures = {
        "good_requests": len(log.latencies),
        "statuses": {str(status): count for status, count in sorted(log.statuses.items())},
        "bad_clients": dict(sorted(log.bad.items())),
        "wrong": len(log.wrong),
        "p50_ms": [round(float(np.median(each)), 1) if each else None for each in (alone, beside)],
        "p99_ms": [round(value, 1) for value in p99],
        "descriptors": [opened, left_open],
        "memory_mib": [round(mib) for _, mib in (memory[:1] + memory[-1:])],
        "peak_memory_mib": round(max((mib for _, mib in memory), default=0)),
        "growth_mib_a_minute": round(growth, 2),
        "memory_by_time": [[round(each, 1) for each in sample] for sample in log.memory[::_SAMPLES_KEPT]],
    }
    faults = [f"{len(log.wrong)} wrong answers, the first: {log.wrong[0]}"] if log.wrong else []
    if left_open > opened:
        faults.append(f"{left_open} descriptors are open after the load, {opened} before it")
    if not growth < _MOST_GROWTH:
        faults.append(f"memory grows by {growth:.2f} MiB a minute")
    if not p99[1] <= _MOST_SLOWER * p99[0]:
        faults.append(f"p99 is {p99[1]:.0f} ms beside bad clients, {p99[0]:.0f} ms without")
    return figures, faults


def start(arguments: list[str], port: int) -> subprocess.Popen[bytes]:
    """A server that is ready. Raises SystemExit if it does not get so far."""
    process = subprocess.Popen(
        [sys.executable, "server.py", *arguments, "--port", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200:
                return process
        except requests.RequestException:
            pass
        time.sleep(0.2)
    process.kill()
    raise SystemExit(f"the server did not get ready: python server.py {shlex.join(arguments)}")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    own, _, flags = "\0".join(arguments).partition("\0--\0") if "--" in arguments else ("\0".join(arguments), "", "")
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="default %(default)s")
    parser.add_argument("--clients", type=int, default=2, help="good clients (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(own.split("\0") if own else [])
    server_flags = flags.split("\0") if flags else _FLAGS
    port = free_port()
    process = start(server_flags, port)
    try:
        soak = Soak(f"http://127.0.0.1:{port}", process.pid, args.minutes * 60, args.clients)
        opened = descriptors(process.pid)
        soak.run()
        time.sleep(_QUIET)
        alive = process.poll() is None
        figures, faults = verdict(soak.log, soak.seconds, opened, descriptors(process.pid) if alive else 0)
        info = requests.get(f"{soak.url}/info", timeout=10).json() if alive else {}
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    if not alive or status != 0:
        faults.append(f"the server ended with status {status}")
    result = {
        "what": "soak",
        "model": info.get("model", "demo"),
        "command": shlex.join(["python", "-m", "bench.soak", *arguments]),
        "machine": machine(info.get("device", "cpu")),
        "server": shlex.join(["python", "server.py", *server_flags]),
        "mode": info.get("mode"),
        "minutes": args.minutes,
        "rows": [figures],
        "faults": faults,
    }
    write(result, args.out)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
