"""Measures the systems in turn, each in a process of its own, on the same images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.harness.lists import keep_list
from bench.harness.load import WorkerFailed, run_load, serving
from bench.harness.systems import SYSTEMS
from bench.harness.worker import Job


@dataclass(frozen=True)
class Plan:
    """What is asked of every system."""

    job: Job  # all but the system's name and the result's path
    concurrency: Sequence[int]  # 1 is among them
    requests: int  # at each concurrency, at least: the images in turn, so many times
    generate_images: int  # how many of the images are timed in generate()
    lists: Path  # where the answers are kept, a file a system
    one_start: bool = False  # nothing but the start with empty compile caches; what compiles takes minutes to start
    caches: Path | None = None  # compile caches that stay: one start, a cold one where they hold nothing yet


def measure_system(name: str, plan: Plan) -> dict[str, Any]:
    """Everything about one system but its accuracy. Raises WorkerFailed."""
    images = [Path(path).read_bytes() for path in plan.job.images]
    with tempfile.TemporaryDirectory() as folder:
        caches, result = plan.caches or Path(folder) / "caches", Path(folder) / "result.json"
        warm_alone = plan.caches is not None and plan.caches.is_dir() and any(plan.caches.iterdir())
        repeat = -(-plan.requests // len(images))
        timed = plan.job.images[: plan.generate_images]
        job = replace(plan.job, system=name, images=timed, result=str(result))
        starts = [] if plan.one_start or plan.caches else [_start_and_stop(replace(job, startup_only=True), caches)]
        http: dict[str, dict[str, Any]] = {}
        answers: dict[int, list[bytes]] = {}
        with serving(job, caches) as worker:
            starts.append(worker.seconds_to_ready)
            for concurrency in plan.concurrency:
                http[str(concurrency)], answers[concurrency] = run_load(worker.url, images, repeat, concurrency, name)
        # not before: a run that fails leaves those of the last one alone; of most clients where they have company
        busiest = max(answers) if job.batch_size > 1 else 1
        keep_list(plan.lists, name, answers[busiest][: len(images)])
        cold, warm = (None, starts[0]) if warm_alone else (starts[0], starts[1] if len(starts) > 1 else None)
        startup = {"cold": cold and round(cold, 2), "warm": warm and round(warm, 2)}
        return {"what": SYSTEMS[name].what, "startup_s": startup, "http": http, **json.loads(result.read_text())}


def _start_and_stop(job: Job, caches: Path) -> float:
    with serving(job, caches) as worker:
        return worker.seconds_to_ready


def measure_all(names: Sequence[str], plan: Plan) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures of the systems that ran to their end, and why the others are not among them."""
    figures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        if SYSTEMS[name].needs_cuda and plan.job.device != "cuda":
            missing[name] = "needs a CUDA device"
            continue
        try:
            figures[name] = measure_system(name, plan)
        except (WorkerFailed, OSError, ValueError) as error:
            missing[name] = f"failed: {error}"
        except KeyboardInterrupt:
            missing.update({left: "interrupted" for left in names if left not in figures and left not in missing})
            break
    return figures, missing
