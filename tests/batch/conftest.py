"""Fixtures of the batch job's tests: an S3 interface on this machine."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Iterator

import fsspec
import pytest
from helpers import wait_until

_ADDRESS = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
_BUCKETS = itertools.count()


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 interface in a process of its own, which the environment names, with keys for it."""
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as written, subprocess.Popen(command, stdout=written, stderr=written) as process:
        try:
            wait_until(lambda: _ADDRESS.search(log.read_text()) is not None)
            match = _ADDRESS.search(log.read_text())
            assert match is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", match[1])
                patch.setenv("AWS_ACCESS_KEY_ID", "testing")
                patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
                patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
                yield match[1]
        finally:
            process.terminate()


@pytest.fixture
def s3(s3_endpoint: str) -> str:
    """The address of a new bucket."""
    bucket = f"bucket-{next(_BUCKETS)}"
    fsspec.filesystem("s3").call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}"
