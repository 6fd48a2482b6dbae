"""How speed grows with replicas: `python -m bench.scale checkpoints large --mode furious --replicas 1 2`.

The real server starts without Ray, and then with each number of replicas, a GPU each; 16 clients a replica send the
sample photographs in turn, and one client asks alone where there is one device. All share a compile cache, so that the
first start compiles and the others find it. With `--planted`, decoder outputs are planted; with `--enlarged`, one
photograph in four has 3.4 megapixels.

Two replicas are to be 1.9 times as fast as one device, four 3.8 times and eight 7.4 times, and a lone request through
one replica is to take at most 4 ms more than without Ray. The exit status is 1 if that does not hold, or if a row is
missing. On Ctrl-C, what has been measured makes the page.

`--batch` measures batch jobs instead.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench import RESULTS, SAMPLES
from bench.front import medians
from bench.harness.arguments import add_system
from bench.harness.batch_process import run_batch
from bench.harness.clients import Load, run_clients
from bench.harness.failures import WorkerFailed
from bench.harness.interrupts import interruptible, stopping_early
from bench.harness.machine import machine
from bench.harness.photographs import enlarge_truck
from bench.harness.server_process import Server, running
from bench.harness.weights import check_device, choose_model, write_seeded
from bench.report.pages import write
from bench.report.replicas import name_of
from bench.startup import free_port
from sam2_amg.config import Mode

_LEAST_TIMES = {2: 1.9, 4: 3.8, 8: 7.4}  # replicas -> times the speed of one device
_MOST_MORE = 4.0  # milliseconds that Ray adds to a lone request
_MODES = {mode.value: mode.flags.split() for mode in Mode if mode.is_pipeline}


def flags_of(args: argparse.Namespace, caches: Path) -> list[str]:
    """The flags of the model, which server and batch job share."""
    points = ["--points_per_side", str(args.points_per_side)]
    cache = ["--compile_cache", str(caches)] if Mode(args.mode).is_compiled else []
    return ["--device", args.device, *_MODES[args.mode], *points, *cache]


def measure_server(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """A row. One client asks alone where there is one device."""

    files = [str(path) for path in [*SAMPLES, *([enlarge_truck()] if args.enlarged else [])]]

    def load(clients: int, seconds: float) -> Load:
        return Load(server.port, server.process, files, clients, seconds, args.warm_up)

    devices = max(1, server.replicas)
    clients = args.clients * devices
    rounds = [run_clients(load(clients, args.seconds)) for _ in range(args.rounds)]
    one = run_clients(load(1, args.seconds)) if devices == 1 else None
    ready = {"ready_s": round(server.seconds_to_ready, 1)}
    return {
        "replicas": server.replicas,
        "clients": clients,
        **medians(rounds),
        **ready,
        "one_client": one,
        "rounds": rounds,
    }


def measure_count(count: int, args: argparse.Namespace, directory: Path, caches: Path) -> dict[str, Any]:
    """A row for so many replicas; 0 is without Ray. Raises WorkerFailed."""
    flags = flags_of(args, caches)
    model = [str(directory), args.model_type]
    if args.batch:
        return {"replicas": count, **run_batch(model, flags, count, args.batch_images, args.patience)}
    program = ("-m", "bench.harness.bench_server", "planted") if args.planted else ("server.py",)
    with running(program, [*model, *flags], free_port(), count, args.patience) as server:
        return measure_server(server, args)


def measure(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows, and why others are missing."""
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = args.checkpoint_dir.resolve()
        if args.weights == "seeded":
            directory = Path(folder)
            write_seeded(directory, args.model_type)
        counts = [0, *sorted(set(args.replicas))]
        with stopping_early():
            for count in counts:
                name = name_of(count)
                if (problem := why_not(count, args.device)) is not None:
                    missing[name] = problem
                    continue
                print(f"{name} ...", file=sys.stderr, flush=True)
                try:
                    rows.append(measure_count(count, args, directory, args.caches or Path(folder) / "caches"))
                    print(f"{name}: {rows[-1]['images_per_second']:.1f} images/s", file=sys.stderr, flush=True)
                except WorkerFailed as error:
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
                    missing[name] = str(error).splitlines()[0]
        done = {row["replicas"] for row in rows}
        missing |= {name: "interrupted" for c in counts if c not in done and (name := name_of(c)) not in missing}
    return with_times(rows), missing


def why_not(count: int, device: str) -> str | None:
    """Why so many replicas cannot be measured here; None if they can."""
    if count and find_spec("ray") is None:
        return "Ray is not installed; install it: pip install -r requirements-ray.txt"
    if device == "cuda" and count > (there := torch.cuda.device_count()):
        return f"needs {count} GPUs; this host has {there}"
    return None


def with_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their speed as times the faster of those with one device; None without such a row."""
    one = max((row["images_per_second"] for row in rows if row["replicas"] <= 1), default=None)
    return [{**row, "times": one and round(row["images_per_second"] / one, 3)} for row in rows]


def verdict(rows: Sequence[dict[str, Any]], device: str) -> tuple[list[str], bool]:
    """A line for each demand that the rows can tell of, and whether all hold. On a CPU replicas share their cores, so
    nothing is demanded."""
    if device == "cpu":
        return [], True
    lines, held = [], True
    by_count = {row["replicas"]: row for row in rows}

    def note(what: str, holds: bool) -> None:
        nonlocal held
        lines.append(f"{what}: {'held' if holds else 'NOT held'}")
        held = held and holds

    for count, least in _LEAST_TIMES.items():
        if (row := by_count.get(count)) and row["times"] is not None:
            what = f"{count} replicas at least {least} times as fast as one device ({row['times']:.2f})"
            note(what, row["times"] >= least)
    if (more := hand_over(by_count.get(0), by_count.get(1))) is not None:
        note(f"a lone request at most {_MOST_MORE:g} ms longer through a replica ({more:.1f} ms)", more <= _MOST_MORE)
    return lines, held


def hand_over(alone: dict[str, Any] | None, replica: dict[str, Any] | None) -> float | None:
    """Milliseconds that a replica adds to a lone request: the mean over photographs of the medians' difference."""
    if not (alone and replica and alone.get("one_client") and replica.get("one_client")):
        return None
    pairs = zip(alone["one_client"]["p50_by_image"], replica["one_client"]["p50_by_image"], strict=True)
    return statistics.mean(after - before for before, after in pairs)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_system(parser)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2], metavar="N", help="default 1 2")
    parser.add_argument("--clients", type=int, default=16, help="a replica (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of a measurement (default %(default)s)")
    parser.add_argument("--warm_up", type=float, default=3, help="seconds before it (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="default %(default)s")
    parser.add_argument("--enlarged", action="store_true", help="send truck.jpg at 3.4 megapixels, 1.1 MB, too")
    parser.add_argument("--caches", type=Path, help="compile caches that stay (default: new ones)")
    parser.add_argument("--patience", type=float, default=240, help="seconds until ready (default %(default)s)")
    parser.add_argument("--batch", action="store_true", help="measure batch jobs instead")
    parser.add_argument("--batch_images", type=int, default=1600, help="a replica (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    check_device(parser, args)
    if args.mode not in _MODES:
        parser.error(f"--mode {args.mode}: choose from {', '.join(_MODES)}")
    if min(args.replicas) < 1:
        parser.error("--replicas counts from 1; without Ray is always measured")
    if args.batch and args.planted:
        parser.error("--batch runs the command `batch`, in which nothing is planted; leave --planted out")
    if args.batch and args.enlarged:
        parser.error("--batch runs over the sample photographs; leave --enlarged out")
    if args.batch and find_spec("sam2_amg.replicas.shards") is None:
        parser.error("--batch: the command `batch` has no --replicas here (sam2_amg/replicas/shards.py is missing)")
    rows, missing = measure(args)
    lines, held = verdict(rows, args.device)
    result = {
        "what": "scale" + "-batch" * args.batch,
        "model": args.model_type,
        "command": shlex.join(["python", "-m", "bench.scale", *arguments]),
        "machine": machine(args.device),
        "mode": args.mode,
        "weights": args.weights,
        "planted": args.planted,
        "enlarged": args.enlarged,
        "points_per_side": args.points_per_side,
        "clients": args.clients,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "rows": rows,
        "verdict": lines,
        "missing": missing,
    }
    write(result, args.out)
    return 0 if held and rows and not missing else 1


if __name__ == "__main__":
    with interruptible():
        sys.exit(main(sys.argv[1:]))
