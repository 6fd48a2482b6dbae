"""Agreement of modes over many images. Nothing is timed, so everything runs at once, several processes a mode."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from bench.harness.load import Worker, WorkerFailed, post
from bench.harness.systems import SYSTEMS
from bench.harness.worker import Job


class Collector:
    """Answers of systems as they come in; what is there can be used whenever it ends."""

    def __init__(self, names: Sequence[str], job: Job, shards: int) -> None:
        self.job = replace(job, startup_only=True)  # nothing to time once it has served
        # A system that compiles answers quickly once it has, and would compile in every process.
        self.shards = {name: 1 if SYSTEMS[name].compiles else min(shards, len(job.images)) for name in names}
        self.answers: dict[str, dict[int, bytes]] = {name: {} for name in names}
        self.missing: dict[str, str] = {}
        self.workers: list[Worker] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Asks every system for every image; on Ctrl-C, what is under way is given up, and what there is stays."""
        pairs = [(name, shard) for name, shards in self.shards.items() for shard in range(shards)]
        total = len(self.answers) * len(self.job.images)
        with (
            tempfile.TemporaryDirectory() as caches,
            tqdm(total=total, unit="answer", desc="answers", mininterval=5) as progress,
            ThreadPoolExecutor(len(pairs)) as pool,
        ):
            running = [
                pool.submit(self._ask, name, shard, Path(caches) / name, self._environment(name, place), progress)
                for place, (name, shard) in enumerate(pairs)
            ]
            try:
                for task in running:
                    task.result()
            except KeyboardInterrupt:
                self.stopped.set()
                for worker in self.workers:
                    worker.process.kill()  # its thread sees the end, whatever it waits for

    def _environment(self, name: str, place: int) -> dict[str, str]:
        """What lets several processes share a machine: each has one of its GPUs, in turn; and where they are of one
        system, baseline's allocator alone would hold 15 GB each, four times what it uses, and torch would start a
        thread a core. `place` is the number of the process among all."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
        chosen = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus and self.job.device == "cuda" else {}
        if self.shards[name] == 1:
            return chosen
        threads = max(1, len(os.sched_getaffinity(0)) // self.shards[name])
        return chosen | {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "OMP_NUM_THREADS": str(threads)}

    def _ask(self, name: str, shard: int, caches: Path, environment: dict[str, str], progress: tqdm) -> None:
        try:
            worker = Worker(replace(self.job, system=name), caches, environment)
        except OSError as error:
            self.missing[name] = f"failed: {error}"
            return
        self.workers.append(worker)
        if self.stopped.is_set():
            worker.process.kill()
        try:
            worker.wait_until_ready()
            for index in range(shard, len(self.job.images), self.shards[name]):
                _, self.answers[name][index] = post(worker.url, Path(self.job.images[index]).read_bytes())
                progress.update()
            worker.stop_serving()
            worker.finish()
        except (WorkerFailed, OSError, ValueError) as error:
            if not self.stopped.is_set():
                self.missing[name] = f"failed: {error}"
            worker.kill()

    def answered(self) -> tuple[dict[str, dict[str, str]], list[int]]:
        """What the systems are that ran to their end, and the numbers of the images that none of them lacks."""
        names = [name for name in self.answers if name not in self.missing]
        if self.stopped.is_set():
            silent = {name for name in names if not self.answers[name]}
            self.missing |= dict.fromkeys(silent, "interrupted before its first answer")
            names = [name for name in names if name not in silent]
        images = sorted(set.intersection(*(set(self.answers[name]) for name in names))) if names else []
        return {name: {"what": SYSTEMS[name].what} for name in names if images}, images
