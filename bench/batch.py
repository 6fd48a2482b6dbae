"""How much of generate()'s speed the batch job keeps, and whether its memory stays: `python -m bench.batch`.

The same generator segments decoded photographs one after another, and then the same photographs, as files, as a batch
job of `jsonl` shards; both in turn, several rounds. `--tiny N` gives the job N images of 64 x 48 pixels instead and
measures by how many bytes an image its memory grows after the first third.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from bench import RESULTS, SAMPLES
from bench.harness.arguments import add_system, job_of
from bench.harness.machine import machine
from bench.harness.weights import check_device, choose_model
from bench.harness.worker import build
from bench.report.pages import write
from sam2_amg.answers.filters import Filters
from sam2_amg.batch.items import Item
from sam2_amg.batch.local import LocalWork
from sam2_amg.batch.makers import finisher
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.batch.stores.folder import FolderStore
from sam2_amg.batch.work import Finished, Shard, make_shards
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.host_memory import give_back_memory, use_huge_pages, use_one_heap

_SHARD = 200  # images
_SAMPLES = 300  # of memory, over the job


def run_job(
    work: LocalWork, files: Sequence[bytes], count: int, folder: Path, note: Callable[[Finished], None]
) -> float:
    """Seconds of a job of `count` images, the files in turn."""
    store, output = FolderStore(folder), OUTPUTS["jsonl"]

    def items(first: int) -> Iterator[Item]:
        for i in range(first, min(count, first + _SHARD)):
            yield Item(f"{i}.jpg", files[i % len(files)])

    shards = (Shard(i, items(i), store.write(f"{i:06d}.jsonl")) for i in range(0, count, _SHARD))
    begun = time.perf_counter()
    for _ in make_shards(shards, work, output, "bench", note):
        pass
    return time.perf_counter() - begun


def generate_alone(generator: Generator, images: Sequence[np.ndarray], count: int) -> float:
    """Seconds of `count` calls of generate(), one after another."""
    begun = time.perf_counter()
    for i in range(count):
        generator.generate(images[i % len(images)])
    return time.perf_counter() - begun


def measure(generator: Generator, work: LocalWork, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for generate(), one for the job."""
    files = [path.read_bytes() for path in SAMPLES]
    images = [decode_image(data, Limits()) for data in files]
    rates: dict[str, list[float]] = {"generate() alone": [], "batch job": []}
    for _ in tqdm(range(args.rounds), desc="rounds", disable=None):
        rates["generate() alone"].append(args.images / generate_alone(generator, images, args.images))
        with tempfile.TemporaryDirectory() as folder:
            seconds = run_job(work, files, args.images, Path(folder), lambda _: None)
        rates["batch job"].append(args.images / seconds)
    ratios = [job / alone for alone, job in zip(*rates.values(), strict=True)]
    rows = [{"what": name, "images_per_second": round(statistics.median(each), 3)} for name, each in rates.items()]
    return [
        {**row, "ratio": ratio} for row, ratio in zip(rows, (1.0, round(statistics.median(ratios), 4)), strict=True)
    ]


def measure_memory(work: LocalWork, count: int) -> list[dict[str, Any]]:
    """A row for a job of tiny images."""
    random, files = np.random.default_rng(0), []
    for _ in range(50):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    samples: list[tuple[int, int]] = []
    done = 0

    def note(_: Finished) -> None:
        nonlocal done
        done += 1
        if done % max(1, count // _SAMPLES) == 0:
            samples.append((done, _resident()))

    with tempfile.TemporaryDirectory() as folder:
        seconds = run_job(work, files, count, Path(folder), note)
    counts, sizes = np.array([each for each in samples if each[0] > count / 3]).T
    slope = float(np.polyfit(counts, sizes, 1)[0])
    row = {"what": f"batch job of {count} tiny images", "images_per_second": round(count / seconds, 2)}
    return [{**row, "bytes_an_image": round(slope, 1), "resident_mib": round(int(sizes[-1]) / 2**20)}]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_system(parser)
    parser.add_argument("--batch_size", type=int, default=1, help="images encoded together (default %(default)s)")
    parser.add_argument("--images", type=int, default=300, help="of a round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--tiny", type=int, metavar="N", help="measure memory over N tiny images, and nothing else")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    choose_model(parser, args)
    check_device(parser, args)
    use_one_heap()
    use_huge_pages()
    job = job_of(args, args.mode, [], repeats=1, startup_only=False, batch_size=args.batch_size)
    with DecoderPool(Limits()) as decoders:
        generator, _, _ = build(job)
        work = LocalWork(
            generator, decoders, torch.device(args.device), Filters(), None, finisher(OUTPUTS["jsonl"]), False
        )
        work.warm_up()
        give_back_memory()
        rows = measure_memory(work, args.tiny) if args.tiny else measure(generator, work, args)
        work.close()
    result = {
        "what": "batch-memory" if args.tiny else "batch",
        "model": args.model_type,
        "command": shlex.join(["python", "-m", "bench.batch", *arguments]),
        "machine": machine(args.device),
        "mode": args.mode,
        "rows": rows,
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
