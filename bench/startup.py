"""How long `server.py` takes from its start to ready, and whether requests after that are even.

    python -m bench.startup                                            the demo model, on what is there
    python -m bench.startup checkpoints large --furious
    python -m bench.startup --model_type large --weights seeded --furious     where there is no checkpoint

Packages are made first. Then the server starts in mode ao (beside fast alone), in fast or furious with empty compile
caches, again with what those hold by then, and from the packages; each time images of many sizes are posted as soon as
/readyz says 200.
"""

from __future__ import annotations

import argparse
import io
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from tqdm import tqdm

from bench import RESULTS, ROOT
from bench.harness.load import post
from bench.harness.machine import machine
from bench.harness.weights import add_device, add_model, choose_model, write_seeded
from bench.report.pages import write
from bench.report.tables import STARTUP_SIZES
from sam2_amg.demo import EXAMPLE
from sam2_amg.modes.warmup import keep_from_garbage_collection

_PATIENCE = 1800.0  # seconds until ready
_IMPORTING = "importing"  # what a server does before it listens
_SLOWEST = 5  # requests that the result names


def images_of_sizes(count: int) -> list[bytes]:
    """JPEG files of the dog's photograph, squeezed to `count` sizes from 64 to 1600 pixels a side."""
    random = np.random.default_rng(0)
    files = []
    with Image.open(EXAMPLE) as photograph:
        for width, height in random.integers(64, 1601, (count, 2)).tolist():
            file = io.BytesIO()
            photograph.resize((width, height)).save(file, "JPEG")
            files.append(file.getvalue())
    return files


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure_start(arguments: list[str], images: list[bytes], label: str) -> dict[str, Any]:
    """Starts `server.py` with `arguments`: seconds to ready, and with what; milliseconds of the requests after that."""
    port = free_port()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "server.py", *arguments, "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        phases: dict[str, float] = {}
        now = started
        while (phase := _phase_of(url)) is not None:
            if process.poll() is not None or now - started > _PATIENCE:
                raise SystemExit(f"the server did not get ready: python server.py {shlex.join(arguments)}")
            time.sleep(0.05)
            before, now = now, time.monotonic()
            phases[phase] = phases.get(phase, 0.0) + now - before
        ready = time.monotonic() - started
        keep_from_garbage_collection()  # of this process, which would be counted as the server's
        times = [post(url, image)[0] for image in tqdm(images, desc=label, unit="request", disable=None)]
        compilations = requests.get(url + "/info", timeout=60).json()["compilations"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    figures = {"first": times[0], "median": statistics.median(times), "slowest": max(times)}
    rounded = {name: round(value, 1) for name, value in figures.items()}
    slowest = sorted(range(len(times)), key=lambda index: -times[index])[:_SLOWEST]
    return {
        "ready_s": round(ready, 2),
        "phases_s": {phase: round(seconds, 1) for phase, seconds in phases.items()},
        "requests": len(times),
        "ms": rounded,
        "slowest_requests_ms": {str(index): round(times[index], 1) for index in slowest},
        "compilations": compilations,
    }


def _phase_of(url: str) -> str | None:
    """What the server says that it is doing; None where it is ready."""
    try:
        answer = requests.get(url + "/readyz", timeout=60)
    except requests.ConnectionError:
        return _IMPORTING
    if answer.status_code == 200:
        return None
    return str(answer.json()["error"]["message"]).removeprefix("Not ready yet: ").rstrip(".")


def measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], float | None]:
    """Every way to start, by its name; and how many seconds it took to make packages, None where there are none."""
    sizes = images_of_sizes(min(STARTUP_SIZES, args.requests))
    images = [sizes[index % len(sizes)] for index in range(args.requests)]
    name, mode = ("furious", ["--fast", "--furious"]) if args.furious else ("fast", ["--fast"])
    with tempfile.TemporaryDirectory() as folder:
        directory = args.checkpoint_dir.resolve()
        if args.weights == "seeded":
            directory = Path(folder)
            write_seeded(directory, args.model_type)
        model = [str(directory), args.model_type]
        common = [*model, "--device", args.device, "--points_per_side", str(args.points_per_side)]
        packages, caches = f"{folder}/packages", ["--compile_cache", f"{folder}/caches"]
        started = time.monotonic()
        export = ["compile_export.py", *common, *mode, "--output", packages]
        exported = subprocess.run([sys.executable, *export], cwd=ROOT, check=False).returncode == 0
        seconds = round(time.monotonic() - started, 1)
        starts = {
            **({} if args.furious else {"ao": []}),
            f"{name}, nothing cached": [*mode, *caches],
            f"{name}, compile cache": [*mode, *caches],
            **({f"{name}, packages": [*mode, "--load_exported", packages]} if exported else {}),
        }
        rows = {start: measure_start([*common, *flags], images, start) for start, flags in starts.items()}
    return rows, seconds if exported else None


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--furious", action="store_true", help="furious instead of fast")
    add_device(parser)
    parser.add_argument("--points_per_side", type=int, default=32)
    parser.add_argument("--requests", type=int, default=200, help="after each start (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    rows, export_seconds = measure(args)
    result = {
        "what": "startup" + "-furious" * args.furious + "-seeded" * (args.weights == "seeded"),
        "model": args.model_type,
        "command": shlex.join(["python", "-m", "bench.startup", *arguments]),
        "machine": machine(args.device),
        "points_per_side": args.points_per_side,
        "weights": args.weights,
        "export_s": export_seconds,
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
