"""Batch jobs in processes of their own, and what they have written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sam2_amg.batch.run import run_batch
from sam2_amg.cli.batch import parse

ROOT = Path(__file__).resolve().parents[2]
# Kills its own process at the Nth event of a kind (PEP 578): before a rename, a link, a connection.
_KILLED_AT = """
import os, signal, sys
event, left = sys.argv[1], int(sys.argv[2])
def hook(name, _):
    global left
    if name == event:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
del sys.argv[1:3]
from sam2_amg.cli.main import main
sys.exit(main())
"""


def command(*arguments: str | Path, killed_at: tuple[str, int] | None = None) -> list[str]:
    """A command line of `batch` with few points; `killed_at` is an audit event and its number."""
    first = [sys.executable, "-m", "sam2_amg"]
    if killed_at is not None:
        first = [sys.executable, "-c", _KILLED_AT, killed_at[0], str(killed_at[1])]
    return [*first, "batch", "--points_per_side", "1", *map(str, arguments)]


def run(
    *arguments: str | Path, killed_at: tuple[str, int] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a job to its end."""
    return subprocess.run(
        command(*arguments, killed_at=killed_at),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=300,
        check=False,
        **options,
    )


def run_here(*arguments: str | Path) -> int:
    """Runs a job in this process, which has torch; the exit status. Raises StartupError."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        device = [] if "--server" in arguments else ["--device", "cpu"]
        return run_batch(parse([*device, "--points_per_side", "1", *map(str, arguments)]))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Starts a job."""
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def environment() -> dict[str, str]:
    """One thread, so that jobs may run beside each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def rows_of(folder: Path) -> list[list[dict[str, Any]]]:
    """The rows of each shard, without milliseconds."""
    shards = sorted(path for path in folder.glob("*.jsonl") if path.name[0].isdigit())
    return [[{**json.loads(line), "ms": None} for line in path.read_text().splitlines()] for path in shards]


def files_of(folder: Path) -> set[str]:
    """All files, temporary ones among them."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
