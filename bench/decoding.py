"""How long images take to be decoded: in the process that asks, and by a process of their own.

    python -m bench.decoding

Both decode the same JPEG in turn, ten times each, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import RESULTS
from bench.harness.machine import machine
from bench.harness.photographs import resize_truck
from bench.report.pages import write
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap

_TURN = 10
SIZES = ((800, 534), (1800, 1200), (2250, 1500))  # 0.43, 2.2 and 3.4 megapixels


def time_both(pool: DecoderPool, data: bytes, repeats: int) -> dict[str, list[float]]:
    """Milliseconds in this process and through the pool, ten times each in turn."""
    times: dict[str, list[float]] = {"in_process": [], "pool": []}
    expected = decode_image(data, Limits())
    for _ in range(-(-repeats // _TURN)):
        for i in range(_TURN + 1):
            started = time.perf_counter()
            image = decode_image(data, Limits())
            if i:  # the first one finds the caches as the other left them
                times["in_process"].append((time.perf_counter() - started) * 1e3)
        assert np.array_equal(image, expected)
        for i in range(_TURN + 1):
            started = time.perf_counter()
            with pool.decoded(data) as image:
                if i:
                    times["pool"].append((time.perf_counter() - started) * 1e3)
        assert np.array_equal(image, expected)
    return times


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row for each size."""
    rows = []
    with DecoderPool(Limits()) as pool:
        for width, height in tqdm(SIZES, desc="sizes", disable=None):
            data = resize_truck(width, height, quality=92)
            times = time_both(pool, data, repeats)
            extra = [pool - own for own, pool in zip(times["in_process"], times["pool"], strict=True)]
            medians = {name: round(statistics.median(each), 2) for name, each in times.items()}
            least = {f"least_{name}": round(min(each), 2) for name, each in times.items()}
            row = {"width_height": [width, height], "bytes": len(data), **medians, **least}
            rows.append({**row, "extra": round(statistics.median(extra), 2), "repeats": repeats})
    return rows


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoding", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=100, help="of each size, in tens (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for what is written")
    args = parser.parse_args(arguments)
    use_one_heap()  # as servers do
    use_huge_pages()
    result = {
        "what": "decoding",
        "model": "jpeg",
        "command": shlex.join(["python", "-m", "bench.decoding", *arguments]),
        "machine": machine("cpu"),
        "rows": measure(args.repeats),
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
