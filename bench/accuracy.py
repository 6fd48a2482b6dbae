"""Agreement of modes over many images. Nothing is timed, so everything runs at once, several processes a mode."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.lists import keep_list
from bench.load import Worker, WorkerFailed, run_load
from bench.systems import SYSTEMS
from bench.tables import accuracy_table, table
from bench.worker import Job


def answer_all(name: str, job: Job, shards: int) -> list[bytes]:
    """The answers of a system to every image, in order, from `shards` processes. Raises WorkerFailed."""
    with tempfile.TemporaryDirectory() as caches, ThreadPoolExecutor(shards) as pool:
        parts = [job.images[shard::shards] for shard in range(shards)]
        found = pool.map(lambda images: _answer(replace(job, system=name, images=images), Path(caches)), parts)
        answers: list[bytes] = [b""] * len(job.images)
        for shard, part in enumerate(found):
            answers[shard::shards] = part
    return answers


def _answer(job: Job, caches: Path) -> list[bytes]:
    worker = Worker(job, caches)
    try:
        _, answers = run_load(worker.url, [Path(path).read_bytes() for path in job.images], 1, job.system)
        worker.stop_serving()
        worker.finish()
    except BaseException:
        worker.kill()
        raise
    return answers


def collect_answers(
    names: Sequence[str], job: Job, shards: int, lists: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Keeps the answers of every system; says what they are, and why the others are not among them."""
    job = replace(job, startup_only=True)  # nothing to time once it has served
    with ThreadPoolExecutor(len(names)) as pool:
        running = {name: pool.submit(answer_all, name, job, min(shards, len(job.images))) for name in names}
    systems, missing = {}, {}
    for name, answers in running.items():
        try:
            keep_list(lists, name, answers.result())
            systems[name] = {"what": SYSTEMS[name].what}
        except (WorkerFailed, OSError, ValueError) as error:
            missing[name] = f"failed: {error}"
    return systems, missing


def accuracy_markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    rows = []
    for name, figures in result["systems"].items():
        if accuracy := figures.get("accuracy"):
            count = accuracy["count_mismatches"]
            rows.append([name, accuracy["images"], count, f"{count / accuracy['images']:.1%}"])
    counts = table(["mode", "images", "mask count mismatch", "share of images"], rows)
    parts = [f"# {result['what']}: {result['model']} on {result['machine']['device']}", result["summary"]]
    parts += ["## Agreement with baseline, all images", accuracy_table(result["systems"]), counts]
    if result["missing"]:
        parts += ["## Not measured", table(["mode", "why"], list(result["missing"].items()))]
    return "\n\n".join(parts) + "\n"
