"""What the HTTP front costs where replicas work elsewhere: `python -m bench.front`.

Two servers stand side by side, the product's own around what answers at once with 30 kB: one answers in its own process
(HTTP alone), one hands each image to replicas that Ray Serve runs. Clients in another process send a JPEG by multipart
form to /upload_rle, to both in turn, several rounds. CPU time is that of the front's process, all its threads; the
difference between the two is the hand-over.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import RESULTS
from bench.harness.clients import Load, run_clients
from bench.harness.failures import WorkerFailed
from bench.harness.machine import machine
from bench.harness.server_process import Server, running
from bench.report.pages import write
from bench.startup import free_port
from sam2_amg.demo import EXAMPLE

_PROGRAM = ("-m", "bench.harness.bench_server", "instant")
_PATIENCE = 180.0  # seconds until a server is ready
_MOST = 2.5  # milliseconds of the front's CPU an image


def measure(servers: Sequence[Server], file: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each server and number of clients."""
    loads = [(server, clients) for clients in (args.clients, 1) for server in servers]
    rounds: list[list[dict[str, Any]]] = [[] for _ in loads]
    for _ in tqdm(range(args.rounds), desc="rounds", disable=None):
        for (server, clients), found in zip(loads, rounds, strict=True):
            load = Load(server.port, server.process, [str(file)], clients, args.seconds, args.warm_up)
            found.append(run_clients(load))
    return [
        {"replicas": server.replicas, "clients": clients, **medians(found), "rounds": found}
        for (server, clients), found in zip(loads, rounds, strict=True)
    ]


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds, and the least CPU time of one."""
    keys = ("images_per_second", "p50", "p99", "cpu_ms_an_image", "cpu_share")
    figures = {key: round(statistics.median(each[key] for each in rounds), 3) for key in keys}
    return {**figures, "least_cpu_ms_an_image": min(each["cpu_ms_an_image"] for each in rounds)}


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.front", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    least = EXAMPLE.stat().st_size
    parser.add_argument("--bytes", type=int, default=300_000, help="of the JPEG (default %(default)s)")
    parser.add_argument("--replicas", type=int, default=2, help="default %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="beside one alone (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of a measurement (default %(default)s)")
    parser.add_argument("--warm_up", type=float, default=1.5, help="seconds before it (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    if args.bytes < least:
        parser.error(f"--bytes {args.bytes}: the photograph that is sent has {least} bytes; give as many or more")
    if find_spec("ray") is None:
        parser.error("Ray is not installed; install it: pip install -r requirements-ray.txt")
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            file = Path(folder) / "photograph.jpg"
            file.write_bytes(EXAMPLE.read_bytes().ljust(args.bytes, b"\0"))
            servers = [
                stack.enter_context(running(_PROGRAM, ["--device", "cpu"], free_port(), replicas, _PATIENCE))
                for replicas in (0, args.replicas)
            ]
            rows = measure(servers, file, args)
    except WorkerFailed as error:
        raise SystemExit(f"bench.front: error: {error}") from error
    result = {
        "what": "front",
        "model": "instant",
        "command": shlex.join(["python", "-m", "bench.front", *arguments]),
        "machine": machine("cpu"),
        "bytes": args.bytes,
        "demanded_cpu_ms": _MOST,
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
