"""Answers of several processes at once are in the order of the images."""

from __future__ import annotations

import json
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

from bench.__main__ import main
from bench.harness.accuracy import Collector
from bench.harness.lists import find_list
from bench.harness.photographs import listed_photographs, make_crops
from bench.harness.worker import Job
from bench.report.tables import accuracy_markdown, counts_table, sources_table
from sam2_amg.agreement.lists import read_list
from sam2_amg.agreement.masks import compare_images, parse_masks
from sam2_amg.answers.rle import rles_by_name
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator


@pytest.fixture
def job(tmp_path: Path) -> Job:
    paths = []
    for index in range(3):
        path = tmp_path / f"{index}.png"
        Image.fromarray(drawn_image(60 + 20 * index, 90, seed=index)).save(path)
        paths.append(path)
    return demo_job(paths, points_per_side=3)


@pytest.mark.slow
def test_answers_are_in_order_and_are_compared(job: Job, demo_model: SAM2Base, tmp_path: Path) -> None:
    """From two processes a mode, of which one is asked for the images between those of the other."""
    (tmp_path / "paths.txt").write_text("".join(f"{path}\n" for path in job.images))
    options = ["--images", tmp_path / "paths.txt", "--out", tmp_path, "--device", "cpu", "--points_per_side", 3]
    assert main([str(x) for x in ("--accuracy", "--shards", 2, *options)]) == 0
    (path,) = tmp_path.glob("accuracy-demo-cpu-*.json")
    result = json.loads(path.read_text())
    generator = build_generator(demo_model, Mode.AO, GeneratorConfig(points_per_side=3), CPU)
    kept = find_list(tmp_path / "lists" / path.stem / "images", "ao")
    answers = [parse_masks(line) for _, line in read_list(kept)]
    for answer, image in zip(answers, job.images, strict=True):
        records = generator.generate(np.array(Image.open(image)))
        assert records
        expected = parse_masks(orjson.dumps(rles_by_name(records)))
        assert answer.size == expected.size
        assert compare_images(answer, expected).score > 0.999
    found = result["sets"]["images"]
    assert found["accuracy"]["ao"]["images"] == 3
    assert found["counts"]["ao"] == found["counts"]["baseline"] == [len(answer.runs) for answer in answers]
    page = path.with_suffix(".md").read_text()
    assert page == accuracy_markdown(result)
    assert main(["--again", str(path), "--out", str(tmp_path)]) == 0
    assert path.with_suffix(".md").read_text() == page


def test_what_one_lacks_is_left_out_for_all(job: Job) -> None:
    collector = Collector(["baseline", "ao", "torchao-64"], job, shards=1)
    collector.answers["baseline"] = {0: b"{}\n", 2: b"{}\n"}
    collector.answers["ao"] = {0: b"{}\n", 1: b"{}\n", 2: b"{}\n"}
    collector.missing["torchao-64"] = "failed: no CUDA"
    systems, images = collector.answered()
    assert (set(systems), images) == ({"baseline", "ao"}, [0, 2])


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(job: Job) -> None:
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
    systems, images = collector.answered()
    assert (set(systems), images) == ({"ao"}, [0, 1])
    assert collector.missing == {"fast": "interrupted before its first answer"}
    assert all(worker.process.poll() is not None for worker in collector.workers)


def test_what_compiles_does_so_once(job: Job) -> None:
    shards = Collector(["baseline", "ao", "fast"], job, shards=2).shards
    assert shards == {"baseline": 2, "ao": 2, "fast": 1}


def test_photographs_are_cropped_as_listed(tmp_path: Path) -> None:
    """At least 200 crops; mirrored ones mirror, quarters and thirds make the whole, and nothing is made twice."""
    (coffee,) = (path for path in listed_photographs() if path.name == "coffee.png")
    crops = make_crops([coffee], tmp_path)
    assert len(crops) * len(listed_photographs()) >= 200
    assert set(crops.values()) == {"coffee"}
    parts = {path.stem.removeprefix("coffee-"): np.array(Image.open(path)) for path in crops}
    assert np.array_equal(parts["whole-mirrored"], parts["whole"][:, ::-1])
    upper, lower = (np.hstack([parts[f"{row}-left"], parts[f"{row}-right"]]) for row in ("top", "bottom"))
    assert np.array_equal(np.vstack([upper, lower]), parts["whole"])
    thirds = [parts[name] for name in ("left-third", "middle-third", "right-third")]
    assert np.array_equal(np.hstack(thirds), parts["whole"])
    before = {path: path.stat().st_mtime_ns for path in crops}
    assert make_crops([coffee], tmp_path) == crops
    assert {path: path.stat().st_mtime_ns for path in crops} == before


def test_counts_are_told_by_image_and_by_photograph() -> None:
    """Furious differs in two crops of the dog and in none of the truck."""
    accuracy = {system: {} for system in ("baseline", "furious")}
    counts = {"baseline": [3, 2, 5], "furious": [4, 1, 5]}
    found = {"images": ["1", "2", "3"], "sources": ["dog", "dog", "truck"], "counts": counts, "accuracy": accuracy}
    assert counts_table(found).splitlines()[-1] == "| furious | 3 | 2 | 66.7% | 2 | 1 |"
    assert sources_table(found).splitlines()[2:] == ["| dog | 2 | 5 | 2 |", "| truck | 1 | 5 | 0 |"]
