"""What the kernel tells of processes, in /proc."""

from __future__ import annotations

import os
from pathlib import Path


def children(process: int) -> list[int]:
    """The processes that a process has started, and that are there."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:  # the thread has ended
            continue
    return sorted(found)


def descendants(process: int) -> list[int]:
    """A process, its children, theirs, and so on."""
    return [process, *(each for child in children(process) for each in descendants(child))]


def is_there(process: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kibibytes(path: str, name: str) -> int:
    """A figure of a file in /proc, such as VmHWM of status; 0 where the process is gone."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def memory_of_one(process: int) -> float:
    """MiB of a process; of what processes share it has its part (PSS)."""
    return kibibytes(f"/proc/{process}/smaps_rollup", "Pss") / 1024


def memory_of(process: int) -> float:
    """MiB of a process and all of its descendants; what they share counts once (PSS)."""
    return sum(memory_of_one(each) for each in descendants(process))


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open, its children's not counted."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def cpu_seconds(process: int) -> float:
    """What a process has used of CPUs so far, by all of its threads; its children's is not counted."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
