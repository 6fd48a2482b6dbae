"""The product's batch job as a process, with replicas or without."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import ROOT, SAMPLES
from bench.harness.failures import WorkerFailed

_SHARD = 50  # images
_LINES = 6  # of what a job says, that are told if it fails


def run_batch(
    model: Sequence[str], flags: Sequence[str], replicas: int, images: int, patience: float
) -> dict[str, Any]:
    """Images a second of a batch job of `images` for each device, while all devices work, and when its shards ended.

    The job may take `patience` seconds to start, and as long again. Raises WorkerFailed.
    """
    devices = max(1, replicas)
    more = ["--replicas", str(replicas)] if replicas else []
    with tempfile.TemporaryDirectory() as folder:
        photographs, shards = Path(folder) / "photographs", Path(folder) / "shards"
        photographs.mkdir()
        for i in range(images * devices):
            shutil.copyfile(sample := SAMPLES[i % len(SAMPLES)], photographs / f"{i:06d}{sample.suffix}")
        arguments = [str(photographs), "--output", str(shards), "--model", *model, *flags, *more]
        command = [sys.executable, "-m", "sam2_amg", "batch", *arguments, "--shard_size", str(_SHARD)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise WorkerFailed(f"the batch job has not ended after {2 * patience:.0f} s") from error
        if done.returncode != 0:
            said = "\n".join(done.stderr.splitlines()[-_LINES:])
            raise WorkerFailed(f"the batch job ended with status {done.returncode}\n{said}")
        ends = ends_of(shards)
    return {
        "images_per_second": round(rate(ends, devices, _SHARD), 3),
        "ends": [round(end - ends[0], 2) for end in ends],
    }


def ends_of(output: Path) -> list[float]:
    """The moments at which shards were there, in order. The list of inputs is not one: it is there from the start."""
    return sorted(path.stat().st_mtime for path in output.glob("[0-9]*.jsonl"))


def rate(ends: Sequence[float], devices: int, size: int) -> float:
    """Images a second of `devices` that all work, from the moments at which shards of `size` were there, in order.

    The first half of the shards does not count, because a device that loads its model later makes fewer of them. Nor do
    the last, which some devices make while others have none left. Each device counts with as many shards. Raises
    WorkerFailed if too few are left.
    """
    first, last = len(ends) // 2 - 1, len(ends) - devices
    count = max(0, last - first) // devices * devices
    if first < 0 or count == 0 or ends[last] == ends[last - count]:
        raise WorkerFailed(f"{len(ends)} shards are too few to tell a rate; give more --batch_images")
    return count * size / (ends[last] - ends[last - count])
