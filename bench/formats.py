"""What the format of answers costs: `python -m bench.formats checkpoints large --mode furious`.

One server answers the same photographs in every format in turn, several rounds, so that whatever else the machine does
meets all formats. With `--planted`, decoder outputs are planted, so that a size without its checkpoint finds masks.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench import RESULTS, SAMPLES
from bench.harness.arguments import add_system, job_of
from bench.harness.load import Worker, run_load, serving
from bench.harness.machine import machine
from bench.harness.weights import check_device, choose_model
from bench.report.pages import write

_FIRST = "rle"  # what the others are compared with
_FORMATS = ("coco", "records", "polygons", "npz")


def measure(worker: Worker, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each format."""
    images = [path.read_bytes() for path in SAMPLES]
    formats = [_FIRST, *args.formats]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in formats}
    bytes_of = {}
    for _ in tqdm(range(args.rounds), desc="rounds", disable=None):
        for name in formats:
            route = f"/segment?format={name}"
            figures, answers = run_load(worker.url, images, args.repeat, args.clients, name, route)
            rounds[name].append(figures)
            bytes_of[name] = statistics.mean(map(len, answers))
    return [_row(name, rounds[name], rounds[_FIRST], bytes_of[name]) for name in formats]


def _row(name: str, own: list[dict[str, Any]], first: list[dict[str, Any]], size: float) -> dict[str, Any]:
    def median(key: str) -> float:
        return round(statistics.median(each[key] for each in own), 2)

    pairs = zip(own, first, strict=True)
    ratios = [each["images_per_second"] / other["images_per_second"] for each, other in pairs]
    return {
        "format": name,
        "images_per_second": median("images_per_second"),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "p50": median("p50"),
        "p99": median("p99"),
        "kb": round(size / 1000, 1),
    }


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.formats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_system(parser)
    parser.add_argument("--formats", nargs="+", default=list(_FORMATS), help=f"default {' '.join(_FORMATS)}")
    parser.add_argument("--clients", type=int, default=16, help="default %(default)s")
    parser.add_argument("--repeat", type=int, default=80, help="of each photograph, a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    check_device(parser, args)
    job = job_of(args, args.mode, SAMPLES, repeats=1, startup_only=True)
    with tempfile.TemporaryDirectory() as caches, serving(job, Path(caches)) as worker:
        rows = measure(worker, args)
    result = {
        "what": "formats",
        "model": args.model_type,
        "command": shlex.join(["python", "-m", "bench.formats", *arguments]),
        "machine": machine(args.device),
        "mode": args.mode,
        "clients": args.clients,
        "rounds": args.rounds,
        "requests": args.repeat * len(job.images),
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
