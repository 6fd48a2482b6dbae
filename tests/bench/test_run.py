"""What is asked of a system, and of its starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import demo_job, drawn_image
from PIL import Image

from bench.harness import run
from bench.harness.lists import find_list
from bench.harness.run import Plan, measure_all
from bench.harness.worker import Job
from sam2_amg.agreement_lists import read_list


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, Path]]:
    """What workers are started with; they say that the first took five seconds, and those after it two."""
    jobs: list[tuple[Job, Path]] = []

    class FakeWorker:
        url = "nowhere"

        def __init__(self, job: Job, caches: Path) -> None:
            jobs.append((job, caches))
            self.job = job

        def wait_until_ready(self) -> None:
            self.seconds_to_ready = 5.0 if len(jobs) == 1 else 2.0

        def stop_serving(self) -> None:
            pass

        def finish(self) -> None:
            if not self.job.startup_only:
                Path(self.job.result).write_text(json.dumps({"generate": len(self.job.images)}))

    def load(_url: str, images: list[bytes], repeat: int, clients: int, _label: str) -> tuple[Any, list[bytes]]:
        return {"requests": len(images) * repeat}, [b'{"clients": %d}\n' % clients] * len(images)

    monkeypatch.setattr(run, "Worker", FakeWorker)
    monkeypatch.setattr(run, "run_load", load)
    return jobs


def plan(folder: Path, **changes: Any) -> Plan:
    Image.fromarray(drawn_image(10, 10)).save(folder / "image.png")
    job = demo_job([folder / "image.png"] * 3, batch_size=changes.pop("batch_size", 1))
    return Plan(job, (1, 4), requests=4, generate_images=2, lists=folder / "lists", **changes)


def test_the_first_start_is_cold_and_the_second_warm(started: list[tuple[Job, Path]], tmp_path: Path) -> None:
    figures, missing = measure_all(["ao", "torchao-64"], plan(tmp_path))
    assert missing == {"torchao-64": "needs a CUDA device"}
    assert figures["ao"]["startup_s"] == {"cold": 5.0, "warm": 2.0}
    assert figures["ao"]["http"] == {"1": {"requests": 6}, "4": {"requests": 6}}
    assert figures["ao"]["generate"] == 2
    (first, caches), (second, same) = started
    assert (first.startup_only, second.startup_only) == (True, False)
    assert caches == same  # so that the second finds what the first compiled


def test_one_start_is_cold(started: list[tuple[Job, Path]], tmp_path: Path) -> None:
    figures, _ = measure_all(["ao"], plan(tmp_path, one_start=True))
    assert figures["ao"]["startup_s"] == {"cold": 5.0, "warm": None}
    assert [job.startup_only for job, _ in started] == [False]


def test_a_start_with_caches_is_warm_where_they_hold_something(started: list[tuple[Job, Path]], tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    assert measure_all(["ao"], plan(tmp_path, caches=caches))[0]["ao"]["startup_s"] == {"cold": 5.0, "warm": None}
    (caches / "compiled").touch()
    assert measure_all(["ao"], plan(tmp_path, caches=caches))[0]["ao"]["startup_s"] == {"cold": None, "warm": 2.0}
    assert [folder for _, folder in started] == [caches] * 2


@pytest.mark.parametrize(("batch_size", "clients"), [(1, 1), (2, 4)])
@pytest.mark.usefixtures("started")
def test_answers_of_most_clients_are_kept_where_images_have_company(
    batch_size: int, clients: int, tmp_path: Path
) -> None:
    measure_all(["ao"], plan(tmp_path, batch_size=batch_size))
    lines = [line for _, line in read_list(find_list(tmp_path / "lists", "ao"))]
    assert lines == [b'{"clients": %d}\n' % clients] * 3
