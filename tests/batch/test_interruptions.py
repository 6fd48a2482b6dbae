"""A job that is killed at any moment loses no more than the shard in hand, and goes on to the same outputs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from batch.jobs import files_of, rows_of, run, run_here, start
from helpers import RunningServer, wait_until
from PIL import Image

from sam2_amg.errors import StartupError

pytestmark = pytest.mark.xdist_group("batch jobs")  # which share a server and the run that nothing disturbs
_IMAGES, _SHARD = 6, 2
_FLAGS = ("--shard_size", str(_SHARD))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small photographs, one in a subfolder, one broken, with names of all kinds."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    (folder / "sub folder").mkdir()
    names = [b"a b.png", b"line\nbreak.png", b"not utf8 \xff.png", b"sub folder/c.png"]
    names += [f"{i}.png".encode() for i in range(_IMAGES - len(names))]
    for name in names:
        small = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((80, 60)).save(os.path.join(os.fsencode(folder), name).decode(errors="surrogateescape"))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def undisturbed(photographs: Path, server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run_here(photographs, "--output", folder, *_FLAGS, "--server", server.url) == 0
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
    assert [row["image"] for row in rows if "error" in row] == ["1.png"]
    good = next(row for row in rows if row["image"] == "a b.png")
    assert (good["width"], good["height"]) == (80, 60)
    assert len(good["sha256"]) == 64
    assert [len(shard) for shard in rows_of(undisturbed)] == [_SHARD] * (_IMAGES // _SHARD)


@pytest.mark.parametrize(
    "moment",
    [
        ("os.link", 1),
        ("os.rename", 2),
        0.1,
        *(pytest.param(slow, marks=pytest.mark.slow) for slow in (("os.link", 2), ("os.rename", 1), ("os.rename", 3))),
        *(pytest.param(slow, marks=pytest.mark.slow) for slow in (0.0, 0.2, 0.3, 0.4, 0.6)),
    ],
)
def test_killed_at_any_moment(
    photographs: Path, undisturbed: Path, server: RunningServer, tmp_path: Path, moment: tuple[str, int] | float
) -> None:
    """Before a link or a rename, or some time after the start of a shard. The next run goes on to the same outputs."""
    out = tmp_path / "out"
    flags = (photographs, "--output", out, *_FLAGS, "--server", server.url)
    if isinstance(moment, tuple):
        assert run(*flags, killed_at=moment).returncode == -signal.SIGKILL
    else:
        job = start(*flags)
        wait_until(lambda: list(out.glob(".00000*.tmp")) or job.poll() is not None, 60)
        time.sleep(moment)
        job.kill()
        job.communicate()
    before = {path: path.read_bytes() for path in out.glob("0*.jsonl")}
    assert all(len(shard) == _SHARD for shard in rows_of(out))
    assert run_here(*flags) == 0
    same(out, undisturbed)
    assert {path: path.read_bytes() for path in before} == before  # what was there stays


def test_ctrl_c_ends_after_the_shard_in_hand(photographs: Path, server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = start(photographs, "--output", out, *_FLAGS, "--server", server.url)
    wait_until(lambda: (out / "000000.jsonl").exists() or job.poll() is not None, 60)
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode in (0, 128 + signal.SIGINT), said  # it may have been done
    assert all(len(shard) == _SHARD for shard in rows_of(out))
    assert not [name for name in files_of(out) if name.endswith(".tmp")]


def test_two_runs_share_the_shards(photographs: Path, undisturbed: Path, server: RunningServer, tmp_path: Path) -> None:
    flags = (photographs, "--output", tmp_path / "out", *_FLAGS, "--server", server.url)
    jobs = [start(*flags, "--shard", f"{i}/2") for i in range(2)]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    same(tmp_path / "out", undisturbed)


def test_without_a_server_the_masks_are_the_same(photographs: Path, server: RunningServer, tmp_path: Path) -> None:
    """In this process, and by a server with the same parameters, in a shard of all."""
    info = requests.get(f"{server.url}/info", timeout=10).json()["parameters"]
    flags = [f"--{name}={info[name]}" for name in ("pred_iou_thresh", "stability_score_thresh")]
    assert run_here(photographs, "--output", tmp_path / "here", *flags, "--batch_size", "3") == 0
    assert run_here(photographs, "--output", tmp_path / "there", *flags, "--server", server.url) == 0
    here, there = (rows_of(tmp_path / name)[0] for name in ("here", "there"))
    assert sum(len(row.get("masks", [])) for row in here) >= 3
    for row, twin in zip(here, there, strict=True):
        close = [{**record, "predicted_iou": 0, "stability_score": 0} for record in row.get("masks", [])]
        other = [{**record, "predicted_iou": 0, "stability_score": 0} for record in twin.get("masks", [])]
        assert close == other
        assert row.get("error") == twin.get("error")


def test_nothing_is_left_to_do(
    photographs: Path, undisturbed: Path, server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model is loaded, the folder may have grown, and other settings are refused by name."""
    grown, out = tmp_path / "grown", tmp_path / "out"
    shutil.copytree(photographs, grown)
    shutil.copytree(undisturbed, out)
    shutil.copy(grown / "0.png", grown / "new.png")
    before, flags = files_of(out), (grown, "--output", out, *_FLAGS, "--server", server.url)
    assert run_here(*flags, "--dry_run") == 0
    assert capsys.readouterr().out.startswith("3 shards in all; 0 left")
    assert run_here(*flags) == 0
    with pytest.raises(StartupError, match=r'asked\.max_masks null, now "7"'):
        run_here(*flags, "--max_masks", "7")
    assert files_of(out) == before


def test_a_dry_run_writes_nothing(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(photographs, "--output", tmp_path / "out", *_FLAGS, "--shard", "1/2", "--dry_run") == 0
    assert capsys.readouterr().out == "3 shards in all; 1 left for this run, with 2 images\n"
    assert not (tmp_path / "out").exists()


def test_a_signal_ends_the_wait_for_servers(photographs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    job = start(photographs, "--output", tmp_path / "out", "--server", url)
    assert job.stderr is not None
    assert f"waiting up to 600 s for {url} (" in job.stderr.readline()
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGTERM
    assert "nothing is begun; start the job again" in said


def test_strict_says_so_by_its_status(photographs: Path, server: RunningServer, tmp_path: Path) -> None:
    flags = (photographs / "1.png", "--output", tmp_path / "out", "--server", server.url)
    assert run_here(*flags, "--strict") == 1
    with pytest.raises(StartupError, match='format "jsonl", now "coco"'):
        run_here(*flags, "--format", "coco")
