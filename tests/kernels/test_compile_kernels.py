"""Kernels compiled for GPUs that are not here: the compiler needs none. What the interpreter accepts and the compiler
does not is found here, and what takes more shared memory than there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from uniform_registers import instructions, read_before_written

WITHOUT_A_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="other tests compile them")


# an address that is right, one of which no part is, and one of which the second part is not
LISTING = """
        /*0070*/                   ULDC.64 UR10, c[0x0][0x208] ;
        /*1020*/                   USHF.R.U32.HI UR6, URZ, 0x4, UR10 ;
        /*10f0*/                   UMOV UR14, UR6 ;
        /*1100*/                   UMOV UR15, 0x40000040 ;
        /*1290*/                   HGMMA.64x64x16.F32 R24, R56, gdesc[UR12], RZ, !UPT ;
        /*2c40*/                   UIADD3 UR4, UP0, UR7, 0x20, URZ ;
        /*2cc0*/                   HGMMA.64x16x16.F32 R56, R68, gdesc[UR2].tnspB, R56 ;
        /*40e0*/              @!P0 EXIT ;
"""


def test_a_register_that_nothing_wrote_is_found() -> None:
    faults = ["UIADD3 UR4, UP0, UR7, 0x20, URZ", "HGMMA.64x16x16.F32 R56, R68, gdesc[UR2].tnspB, R56"]
    assert read_before_written(instructions(LISTING)) == faults
    with pytest.raises(AssertionError, match="another form"):
        instructions("no code")


def compile_kernels(home: Path, *arguments: str) -> None:
    command = [sys.executable, "tests/kernels/compile_kernels.py", *arguments]
    environment = {
        "TRITON_INTERPRET": "0",
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]


@WITHOUT_A_GPU
def test_kernels_compile_for_hopper_and_the_largest_for_others(tmp_path: Path) -> None:
    compile_kernels(tmp_path)


@WITHOUT_A_GPU
@pytest.mark.slow
def test_every_kernel_compiles(tmp_path: Path) -> None:
    compile_kernels(tmp_path, "--all")
