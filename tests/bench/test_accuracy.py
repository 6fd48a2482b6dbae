"""Answers of several processes at once are in the order of the images."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from helpers import CPU, demo_job, drawn_image
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base

from bench.harness.accuracy import Collector
from bench.harness.lists import find_list
from bench.harness.worker import Job
from sam2_amg.agreement import compare_images, parse_masks
from sam2_amg.agreement_lists import compare, read_list
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from sam2_amg.server.app import rles_by_name


@pytest.fixture
def job(tmp_path: Path) -> Job:
    paths = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(drawn_image(60 + 20 * index, 90, seed=index)).save(path)
        paths.append(path)
    return demo_job(paths, points_per_side=3)


def test_answers_come_in_order(job: Job, demo_model: SAM2Base, tmp_path: Path) -> None:
    """From two processes, of which one is asked for the images between those of the other."""
    collector = Collector(["ao"], job, shards=2)
    collector.run()
    systems, images = collector.keep(tmp_path)
    assert (set(systems), images, collector.missing) == ({"ao"}, [0, 1, 2], {})
    generator = build_generator(demo_model, Mode.AO, GeneratorConfig(points_per_side=3), CPU)
    answers = [parse_masks(line) for _, line in read_list(find_list(tmp_path, "ao"))]
    for answer, path in zip(answers, job.images, strict=True):
        records = generator.generate(np.array(Image.open(path)))
        assert records
        expected = parse_masks(orjson.dumps(rles_by_name(records)))
        assert answer.size == expected.size
        assert compare_images(answer, expected).score > 0.999


def test_what_one_lacks_is_left_out_for_all(job: Job, tmp_path: Path) -> None:
    collector = Collector(["baseline", "ao", "torchao-64"], job, shards=1)
    collector.answers["baseline"] = {0: b"{}\n", 2: b"{}\n"}
    collector.answers["ao"] = {0: b"{}\n", 1: b"{}\n", 2: b"{}\n"}
    collector.missing["torchao-64"] = "failed: no CUDA"
    systems, images = collector.keep(tmp_path)
    assert (set(systems), images) == ({"baseline", "ao"}, [0, 2])
    assert compare(find_list(tmp_path, "baseline"), find_list(tmp_path, "ao"))["images"] == 2


def test_ctrl_c_keeps_what_there_is(job: Job, tmp_path: Path) -> None:
    collector = Collector(["ao", "fast"], replace(job, images=job.images[:2], points_per_side=1), shards=1)

    def interrupt() -> None:  # while fast compiles
        while len(collector.answers["ao"]) < 2 and not collector.missing:
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    # a process that a shell began in the background ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        collector.run()
    finally:
        signal.signal(signal.SIGINT, before)
    systems, images = collector.keep(tmp_path)
    assert (set(systems), images) == ({"ao"}, [0, 1])
    assert collector.missing == {"fast": "interrupted before its first answer"}
    assert all(worker.process.poll() is not None for worker in collector.workers)


def test_what_compiles_does_so_once(job: Job) -> None:
    shards = Collector(["baseline", "ao", "fast"], job, shards=2).shards
    assert shards == {"baseline": 2, "ao": 2, "fast": 1}
