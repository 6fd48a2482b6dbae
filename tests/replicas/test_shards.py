"""Batch jobs on replicas write what a run without Ray writes, whatever is lost meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batch.jobs import files_of, rows_of, run, run_here, start
from helpers import wait_until
from PIL import Image

from sam2_amg.batch.makers import manifest_of
from sam2_amg.batch.manifest import Manifest
from sam2_amg.cli.batch import parse
from sam2_amg.errors import StartupError
from sam2_amg.replicas.shards import job_there

pytestmark = pytest.mark.xdist_group("ray")  # one Ray at a time
_IMAGES, _SHARDS = 6, 3
_FLAGS = ("--shard_size", "2", "--decoders", "1", "--pred_iou_thresh", "0.3", "--stability_score_thresh", "0.3")
_REPLICAS = ("--device", "cpu", "--replicas", "2")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small photographs, one of them broken."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for i in range(_IMAGES):
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((80, 60)).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def undisturbed(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a run without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run_here(photographs, "--output", folder, *_FLAGS) == 0
    rows = rows_of(folder)
    assert len(rows) == _SHARDS
    assert sum(len(row.get("masks", [])) for shard in rows for row in shard) >= _IMAGES // 2
    return folder


def processes() -> dict[int, tuple[int, str]]:
    """Parent and name of each process that has not ended."""
    lines = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, errors="replace", check=True
    ).stdout.splitlines()
    split = [line.split(None, 3) for line in lines]
    return {int(pid): (int(parent), name) for pid, parent, state, name in split if not state.startswith("Z")}


def below(root: int) -> dict[int, str]:
    """Names of the processes that a process has started, and of those that they have."""
    there = processes()
    found: dict[int, str] = {}
    parents = {root}
    while parents:
        parents = {pid for pid, (parent, _) in there.items() if parent in parents and pid not in found}
        found |= {pid: there[pid][1] for pid in parents}
    return found


def makers_of(job: subprocess.Popen[str], doing: str = "make") -> list[int]:
    """The replicas of a job that make a shard (or load the model)."""
    return [pid for pid, name in below(job.pid).items() if name.startswith(f"ray::ShardMaker.{doing}")]


def lose_one(job: subprocess.Popen[str], doing: str = "make", pause: float = 0.3) -> None:
    """Kills a replica at a random moment after it has begun."""
    wait_until(lambda: bool(makers_of(job, doing)) or job.poll() is not None, 120)
    victim = random.choice(makers_of(job, doing))
    time.sleep(random.uniform(0, pause))
    os.kill(victim, signal.SIGKILL)


def test_a_replica_writes_what_a_run_without_ray_writes(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(photographs, "--output", out, *_FLAGS, "--device", "cpu", "--replicas", "1")
    assert done.returncode == 0, done.stderr
    assert rows_of(out) == rows_of(undisturbed)


@pytest.mark.slow
def test_a_lost_worker_costs_its_shard(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two replicas, one of which is killed: the outputs of a run without Ray, and nothing is left running."""
    out = tmp_path / "out"
    job = start(photographs, "--output", out, *_FLAGS, *_REPLICAS)
    lose_one(job)
    own = below(job.pid)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0, said
    assert "a worker was lost with shard" in said
    assert f"done: {_IMAGES} of {_IMAGES} images in {_SHARDS} of {_SHARDS} shards" in said
    assert "1 errors" in said
    assert rows_of(out) == rows_of(undisturbed)
    assert not own.keys() & processes().keys()


@pytest.mark.slow
def test_a_good_run_says_no_more_than_without_ray(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(photographs, "--output", out, *_FLAGS, *_REPLICAS)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert rows_of(out) == rows_of(undisturbed)
    assert files_of(out) == files_of(undisturbed)


@pytest.mark.slow
def test_workers_lost_while_they_load_and_while_they_make(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(photographs, "--output", out, *_FLAGS, *_REPLICAS)
    for doing in ("load", "make", "load"):
        lose_one(job, doing)
    _, said = job.communicate(timeout=180)
    assert job.returncode == 0, said
    assert "a worker was lost while it loaded the model" in said
    assert rows_of(out) == rows_of(undisturbed)


@pytest.mark.slow
def test_a_worker_that_is_always_lost_ends_the_job(photographs: Path, tmp_path: Path) -> None:
    job = start(photographs, "--output", tmp_path / "out", *_FLAGS, "--device", "cpu", "--replicas", "1")
    for _ in range(3):
        victims = makers_of(job)
        wait_until(lambda before=victims: bool(set(makers_of(job)) - set(before)), 120)
        os.kill(makers_of(job)[0], signal.SIGKILL)
        wait_until(lambda: not makers_of(job), 10)
    _, said = job.communicate(timeout=120)
    assert job.returncode == 2, said
    assert "error: a worker was lost with shard 0, as 2 were before" in said


@pytest.mark.slow
@pytest.mark.parametrize("goes_on_with", [_REPLICAS, ()])
def test_going_on_after_the_whole_job_is_killed(
    photographs: Path, undisturbed: Path, tmp_path: Path, goes_on_with: tuple[str, ...]
) -> None:
    """With Ray or without."""
    out = tmp_path / "out"
    job = start(photographs, "--output", out, *_FLAGS, *_REPLICAS)
    wait_until(lambda: (out / "000000.jsonl").exists() or job.poll() is not None, 120)
    makers = [pid for pid, name in below(job.pid).items() if name.startswith("ray::ShardMaker")]
    job.kill()
    job.communicate()
    assert makers
    wait_until(lambda: not processes().keys() & set(makers), 30)
    before = {path: path.read_bytes() for path in out.glob("0*.jsonl")}
    assert before
    done = run(photographs, "--output", out, *_FLAGS, "--device", "cpu", *goes_on_with)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before  # what was there stays
    assert rows_of(out) == rows_of(undisturbed)


@pytest.mark.slow
def test_a_shard_that_cannot_be_written(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Status 2 and one line. The job goes on when its reason is gone."""
    out = tmp_path / "out"
    (out / "000001.jsonl").mkdir(parents=True)
    flags = (photographs, "--output", out, *_FLAGS)
    failed = run(*flags, *_REPLICAS)
    assert failed.returncode == 2
    last = failed.stderr.splitlines()[-1]
    assert last.endswith(f"batch: error: {out}/000001.jsonl: it is a folder, and no file; move it away")
    assert "Traceback" not in failed.stderr
    assert not [name for name in files_of(out) if name.endswith(".tmp")]
    shutil.rmtree(out / "000001.jsonl")
    assert run_here(*flags) == 0
    assert rows_of(out) == rows_of(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(photographs: Path, tmp_path: Path, times: int) -> None:
    """The first finishes the shards in hand, the second drops them. All processes of the terminal get the signal."""
    out = tmp_path / "out"
    job = start(photographs, "--output", out, *_FLAGS, *_REPLICAS, "--points_per_side", "32", start_new_session=True)
    wait_until(lambda: bool(makers_of(job)) or job.poll() is not None, 120)
    for pause in (0.3, 1.5)[:times]:
        time.sleep(pause)
        os.killpg(job.pid, signal.SIGINT)
    _, said = job.communicate(timeout=180)
    assert job.returncode == 128 + signal.SIGINT, said
    assert all(len(shard) == 2 for shard in rows_of(out))
    assert (1 <= len(rows_of(out)) < _SHARDS) == (times == 1)
    assert ("is dropped" in said) == (times == 2)


def test_flags_that_contradict_each_other(tmp_path: Path) -> None:
    flags = ["photos", "--output", str(tmp_path)]
    with pytest.raises(StartupError, match="--replicas of a batch job is N, not 1:2"):
        parse([*flags, "--device", "cpu", "--replicas", "1:2"])
    with pytest.raises(StartupError, match="--replicas contradicts --server"):
        parse([*flags, "--replicas", "2", "--server", "http://127.0.0.1:5000"])


def test_a_node_that_sees_another_output_is_refused(
    photographs: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse(
        [str(photographs), "--output", str(undisturbed), "--device", "cpu", "--points_per_side", "1", *_FLAGS]
    )
    begun = manifest_of(config, None)
    assert job_there(config, begun, str(tmp_path)).plan.shards == _SHARDS
    with pytest.raises(StartupError, match=r"nowhere is not there on .*; begin in a folder that all nodes have"):
        job_there(config, begun, str(tmp_path / "nowhere"))
    with pytest.raises(StartupError, match=r"empty has no manifest\.json on .*; give a folder or a bucket that all"):
        job_there(replace(config, output="empty"), begun, str(tmp_path))
    assert not (tmp_path / "empty").exists()
    other = Manifest({**begun.settings, "format": "coco"}, begun.versions)
    with pytest.raises(StartupError, match="is another folder on"):
        job_there(config, other, str(tmp_path))
