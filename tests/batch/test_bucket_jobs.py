"""A job from a bucket to a bucket, which is killed once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import fsspec
import pytest
from batch.jobs import command, environment, run_here
from helpers import RunningServer, drawn_image, png, wait_until

from sam2_amg.batch.stores.bucket import BucketStore

pytestmark = pytest.mark.xdist_group("batch jobs")
_IMAGES = 6


def rows_in(address: str) -> list[list[dict[str, Any]]]:
    """The rows of each shard, without milliseconds."""
    store, shards = BucketStore(address), []
    for name in sorted(name for name in store.names() if name[0].isdigit()):
        with store.read(name) as stream:
            shards.append([{**json.loads(line), "ms": None} for line in stream.read().splitlines()])
    return shards


def test_a_job_in_buckets_goes_on(s3: str, server: RunningServer, tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("s3")
    for i in range(_IMAGES):
        filesystem.pipe_file(f"{s3}/photos/sub {i % 2}/{i}.png", png(drawn_image(40, 60, seed=i)))
    flags = ("--shard_size", "2", "--server", server.url)
    job = subprocess.Popen(command(f"{s3}/photos", "--output", f"{s3}/masks", *flags), env=environment())
    wait_until(lambda: job.poll() is not None or len(rows_in(f"{s3}/masks")) >= 1, 60)
    job.kill()
    job.wait()
    before = rows_in(f"{s3}/masks")
    assert before
    assert run_here(f"{s3}/photos", "--output", f"{s3}/masks", *flags) == 0
    assert run_here(f"{s3}/photos", "--output", tmp_path / "out", *flags) == 0
    rows = rows_in(f"{s3}/masks")
    assert rows[: len(before)] == before
    local = [path.read_text().splitlines() for path in sorted((tmp_path / "out").glob("0*.jsonl"))]
    assert rows == [[{**json.loads(line), "ms": None} for line in lines] for lines in local]
    assert [row["image"] for shard in rows for row in shard] == [
        f"sub {half}/{i}.png" for half in (0, 1) for i in range(half, _IMAGES, 2)
    ]
