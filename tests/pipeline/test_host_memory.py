"""How a process takes memory, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from helpers import ROOT

_PROGRAM = """
    import ctypes, os, re, sys, tempfile, threading
    if sys.argv[1] == "one":
        from sam2_amg.pipeline.host_memory import use_one_arena
        use_one_arena()
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_threads_share_one_arena() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", textwrap.dedent(_PROGRAM), how]
        return int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)

    assert arenas("many") > 2
    assert arenas("one") == 1
