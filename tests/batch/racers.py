"""Programs that tests of stores run in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import ROOT

_RACE = """
import multiprocessing, sys
from sam2_amg.batch.stores.choose import open_store
import s3fs  # before the processes are forked, for each takes a second for it

def run(number):
    store = open_store(sys.argv[1])
    made = ""
    for i in range(int(sys.argv[2])):
        barrier.wait(60)
        made += "01"[store.create(f"{i}.json", lambda file: file.write(str(number).encode() * 1000))]
    return made

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
with context.Pool(8) as pool:
    print(*pool.map(run, range(8), chunksize=1))
"""
_STALL = """
import sys, time
from sam2_amg.batch.stores.choose import open_store
with open_store(sys.argv[1]).write("shard.jsonl") as file:
    file.write(b"x" * (3 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""


def race(address: str, rounds: int) -> list[int]:
    """Which of eight processes made each of 0.json, 1.json ..., where all try at once. The file has the process's
    number, 1000 times."""
    answer = output_of(_RACE, address, str(rounds))
    assert answer.returncode == 0, answer.stderr
    made = answer.stdout.split()
    winners = [[process[i] for process in made] for i in range(rounds)]
    assert [(len(tried), tried.count("1")) for tried in winners] == [(8, 1)] * rounds
    return [tried.index("1") for tried in winners]


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
