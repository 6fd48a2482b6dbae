"""What a process and its children take of the system, read from /proc."""

from __future__ import annotations

import contextlib
from pathlib import Path


def family_of(pid: int) -> list[int]:
    """A process and all processes that it started, and these started, as far as they live."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def memory_mib(pid: int) -> float:
    """MiB of proportional set size (PSS) of a process and its children: a page that n share counts as 1/n for each."""
    total = 0
    for one in family_of(pid):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open, its children's not counted."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
