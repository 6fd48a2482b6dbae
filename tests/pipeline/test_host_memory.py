"""How a process takes memory, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from helpers import ROOT

_ARENAS = """
    import ctypes, os, re, sys, tempfile, threading
    if sys.argv[1] == "one":
        from sam2_amg.pipeline.host_memory import use_one_heap
        use_one_heap()
    libc = ctypes.CDLL(None)
    libc.fdopen.restype, libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, ctypes.c_void_p, [ctypes.c_void_p]
    meet = threading.Barrier(6)

    def take():
        block = libc.malloc(5000)
        meet.wait()
        libc.free(block)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    with tempfile.TemporaryFile() as report:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(report.fileno()), b"w"))
        assert libc.malloc_info(0, stream) == 0 and libc.fclose(stream) == 0
        report.seek(0)
        print(len(re.findall(rb"<heap nr=", report.read())))
"""

_GAPS = """
    import ctypes, sys, time
    from pathlib import Path
    from sam2_amg.pipeline.host_memory import give_back_memory

    def resident():
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) // 1024

    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(100_000) for _ in range(1000)]
    for block in blocks: ctypes.memset(block, 1, 100_000)
    before = resident()
    for block in blocks[:-1]: libc.free(block)  # the last keeps the heap from becoming smaller
    freed = resident()
    if sys.argv[1] == "yes": give_back_memory(0.05)
    time.sleep(0.3)
    print(before - freed, before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_threads_share_one_heap() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", textwrap.dedent(_ARENAS), how]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)

    assert arenas("many") > 2
    assert arenas("one") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_goes_back_to_the_kernel() -> None:
    def returned(how: str) -> list[int]:
        command = [sys.executable, "-c", textwrap.dedent(_GAPS), how]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        return [int(mib) for mib in output.split()]

    assert returned("no") == pytest.approx([0, 0], abs=5)
    at_once, soon = returned("yes")
    assert at_once < 5
    assert soon > 80
