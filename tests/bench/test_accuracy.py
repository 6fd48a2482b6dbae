"""Answers of several processes at once are in the order of the images."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest
from helpers import demo_job, drawn_image
from PIL import Image

from bench.harness.accuracy import Collector
from bench.harness.lists import find_list
from bench.harness.worker import Job
from sam2_amg.agreement_lists import compare


@pytest.fixture
def job(tmp_path: Path) -> Job:
    paths = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(drawn_image(60 + 20 * index, 90, seed=index)).save(path)
        paths.append(path)
    return demo_job(paths, points_per_side=3)


def test_answers_come_in_order_and_agree(job: Job, tmp_path: Path) -> None:
    collector = Collector(["baseline", "ao"], job, shards=2)
    collector.run()
    systems, images = collector.keep(tmp_path)
    assert (set(systems), images, collector.missing) == ({"baseline", "ao"}, [0, 1, 2], {})
    agreement = compare(find_list(tmp_path, "baseline"), find_list(tmp_path, "ao"))
    assert agreement["images"] == 3
    assert agreement["matched_miou"] > 0.999


def test_what_one_lacks_is_left_out_for_all(job: Job, tmp_path: Path) -> None:
    collector = Collector(["baseline", "ao", "torchao-64"], job, shards=1)
    collector.answers["baseline"] = {0: b"{}\n", 2: b"{}\n"}
    collector.answers["ao"] = {0: b"{}\n", 1: b"{}\n", 2: b"{}\n"}
    collector.missing["torchao-64"] = "failed: no CUDA"
    systems, images = collector.keep(tmp_path)
    assert (set(systems), images) == ({"baseline", "ao"}, [0, 2])
    assert compare(find_list(tmp_path, "baseline"), find_list(tmp_path, "ao"))["images"] == 2


def test_ctrl_c_keeps_what_there_is(job: Job, tmp_path: Path) -> None:
    collector = Collector(["ao", "fast"], job, shards=1)

    def interrupt() -> None:  # while fast compiles
        while len(collector.answers["ao"]) < 3 and not collector.missing:
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
    assert (set(systems), images) == ({"ao"}, [0, 1, 2])
    assert collector.missing == {"fast": "interrupted before its first answer"}
    assert all(worker.process.poll() is not None for worker in collector.workers)


def test_what_compiles_does_so_once(job: Job) -> None:
    shards = Collector(["baseline", "ao", "fast"], job, shards=2).shards
    assert shards == {"baseline": 2, "ao": 2, "fast": 1}
