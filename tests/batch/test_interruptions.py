"""A job that is killed at any moment loses no more than the shard in hand, and goes on to the same outputs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from batch.jobs import files_of, rows_of, run, start
from helpers import wait_until
from PIL import Image

_IMAGES, _SHARD = 10, 2
_FLAGS = ("--shard_size", str(_SHARD))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small photographs, one in a subfolder, one broken, with names of all kinds."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    (folder / "sub folder").mkdir()
    names = [b"a b.png", b"line\nbreak.png", b"not utf8 \xff.png", b"sub folder/c.png"]
    names += [f"{i}.png".encode() for i in range(_IMAGES - len(names))]
    for name in names:
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((80, 60)).save(os.path.join(os.fsencode(folder), name).decode(errors="surrogateescape"))
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def undisturbed(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    done = run(photographs, "--output", folder, *_FLAGS)
    assert done.returncode == 0, done.stderr
    return folder


def same(folder: Path, expected: Path) -> None:
    """Equal outputs but for milliseconds; nothing temporary is counted as an output."""
    assert rows_of(folder) == rows_of(expected)
    settings = [json.loads((each / "manifest.json").read_text())["settings"] for each in (folder, expected)]
    assert settings[0] == settings[1]


def test_rows(photographs: Path, undisturbed: Path) -> None:
    """Every photograph once, in order; the broken one is a row with its error."""
    rows = [row for shard in rows_of(undisturbed) for row in shard]
    names = [os.fsencode(row["image"]) for row in rows]
    there = {os.path.relpath(os.path.join(at, name), os.fsencode(photographs))
             for at, _, files in os.walk(os.fsencode(photographs)) for name in files}  # fmt: skip
    assert set(names) == there
    assert len(names) == len(there) == _IMAGES
    assert [row["image"] for row in rows if "error" in row] == ["3.png"]
    good = next(row for row in rows if row["image"] == "a b.png")
    assert (good["width"], good["height"]) == (80, 60)
    assert len(good["sha256"]) == 64
    assert [len(shard) for shard in rows_of(undisturbed)] == [_SHARD] * (_IMAGES // _SHARD)


def test_killed_in_a_rename(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    killed = run(photographs, "--output", tmp_path / "out", *_FLAGS, killed_at=("os.rename", 2))
    assert killed.returncode == -signal.SIGKILL
    assert len(rows_of(tmp_path / "out")) == 1
    again = run(photographs, "--output", tmp_path / "out", *_FLAGS)
    assert again.returncode == 0, again.stderr
    same(tmp_path / "out", undisturbed)


def test_ctrl_c_ends_after_the_shard_in_hand(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    for shard in sorted(out.glob("00000[1-4].jsonl")):
        shard.unlink()
    job = start(photographs, "--output", out, *_FLAGS)
    wait_until(lambda: (out / "000001.jsonl").exists() or job.poll() is not None, 60)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode in (0, 128 + signal.SIGINT), said  # it may have been done
    assert all(len(shard) == _SHARD for shard in rows_of(out))
    assert not [name for name in files_of(out) if name.endswith(".tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [("os.link", 1), ("os.link", 2), *(("os.rename", n) for n in (1, 3, 5)), *range(5)])
def test_killed_at_any_moment(
    photographs: Path, undisturbed: Path, tmp_path: Path, moment: tuple[str, int] | int
) -> None:
    """Before a link or a rename, or some time after the start of a shard."""
    out = tmp_path / "out"
    if isinstance(moment, tuple):
        assert run(photographs, "--output", out, *_FLAGS, killed_at=moment).returncode == -signal.SIGKILL
    else:
        job = start(photographs, "--output", out, *_FLAGS)
        wait_until(lambda: list(out.glob(".00000*.tmp")) or job.poll() is not None, 60)
        time.sleep(random.Random(moment).uniform(0, 0.6))
        job.kill()
        job.communicate()
    before = {path: path.read_bytes() for path in out.glob("0*.jsonl")}
    assert all(len(shard) == _SHARD for shard in rows_of(out))
    again = run(photographs, "--output", out, *_FLAGS)
    assert again.returncode == 0, again.stderr
    same(out, undisturbed)
    assert {path: path.read_bytes() for path in before} == before  # what was there stays


def test_two_runs_share_the_shards(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    jobs = [start(photographs, "--output", tmp_path / "out", *_FLAGS, "--shard", f"{i}/2") for i in range(2)]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    same(tmp_path / "out", undisturbed)


def test_nothing_is_left_to_do(photographs: Path, undisturbed: Path, tmp_path: Path) -> None:
    """No model is loaded, the folder may have grown, and other settings are refused by name."""
    before = files_of(undisturbed)
    grown = tmp_path / "grown"
    shutil.copytree(photographs, grown)
    shutil.copytree(undisturbed, tmp_path / "out")
    shutil.copy(grown / "0.png", grown / "new.png")
    dry = run(grown, "--output", tmp_path / "out", *_FLAGS, "--dry_run")
    assert dry.returncode == 0
    assert dry.stdout.startswith("5 shards in all; 0 left")
    other = run(photographs, "--output", undisturbed, *_FLAGS, "--pred_iou_thresh", "0.5")
    assert other.returncode == 2
    assert "parameters.pred_iou_thresh 0.8, now 0.5" in other.stderr
    assert files_of(undisturbed) == before
