"""Programs that tests of stores run in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import ROOT

_RACE = """
import multiprocessing, sys
from sam2_amg.batch.stores import open_store
import s3fs  # before the processes are forked, for each takes a second for it

def run(number):
    store = open_store(sys.argv[1])
    barrier.wait(60)
    return store.create("claim.json", lambda file: file.write(str(number).encode() * 1000))

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
with context.Pool(8) as pool:
    print(*pool.map(run, range(8), chunksize=1))
"""
_STALL = """
import sys, time
from sam2_amg.batch.stores import open_store
with open_store(sys.argv[1]).write("shard.jsonl") as file:
    file.write(b"x" * (3 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""


def race(address: str) -> list[bool]:
    """Whether each of eight processes, which try at once, made claim.json: the digit of its own, 1000 times."""
    answer = output_of(_RACE, address)
    assert answer.returncode == 0, answer.stderr
    made = [word == "True" for word in answer.stdout.split()]
    assert len(made) == 8
    return made


def killed_while_writing(address: str) -> None:
    """A process that is killed by SIGKILL while it writes shard.jsonl."""
    command = [sys.executable, "-c", _STALL, address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "writing\n"
    finally:
        process.kill()
        process.communicate()


def output_of(program: str, *arguments: str | Path, unshared: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program, if `unshared` with mounts of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    before = ["unshare", "--mount"] if unshared else []
    return subprocess.run([*before, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
