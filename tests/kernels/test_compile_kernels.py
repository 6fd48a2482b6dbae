"""Kernels compiled for GPUs that are not here: the compiler needs none. What the interpreter accepts and the compiler
does not is found here, and what takes more shared memory than there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="other tests compile them")


def compile_kernels(home: Path, *arguments: str) -> None:
    command = [sys.executable, "tests/kernels/compile_kernels.py", *arguments]
    environment = {"TRITON_INTERPRET": "0", "PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]


def test_kernels_compile_for_hopper_and_the_largest_for_others(tmp_path: Path) -> None:
    compile_kernels(tmp_path)


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path: Path) -> None:
    compile_kernels(tmp_path, "--all")
