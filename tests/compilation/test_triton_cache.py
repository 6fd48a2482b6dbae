"""Kernels that Triton compiled are found again by another process, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from sam2_amg.compilation.triton_cache import NAME, pack, unpack, use_packed_kernels
from sam2_amg.errors import StartupError

# compiles one kernel for Hopper, which takes no GPU, and says whether it was there already
COMPILE = """
import triton
from tests.kernels.compile_kernels import compile_kernel
from sam2_amg.kernels.mask_stats import box_kernel

def listen(*, cache_hit, **_):
    print("found" if cache_hit else "compiled")

triton.knobs.compilation.listener = listen
types = {"found": "*i32", "boxes": "*i64", "n": "i32", "height": "i32", "width": "i32"}
print(len(compile_kernel(box_kernel, types, {"BLOCK": 128}, aligned=False).asm["cubin"]))
"""


def compile_in(cache: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    answer = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return answer.stdout.split()


def test_what_is_packed_is_found_elsewhere(tmp_path: Path) -> None:
    made, file, elsewhere = tmp_path / "made", tmp_path / "kernels.zip", tmp_path / "elsewhere"
    said, size = compile_in(made)
    assert said == "compiled"
    pack(made, file)
    made.rename(tmp_path / "gone")  # whole paths into it lead nowhere now
    unpack(file, elsewhere)
    assert compile_in(elsewhere) == ["found", size]


def test_what_cannot_be_unpacked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "as before")
    with pytest.raises(StartupError, match=f"{NAME} cannot be unpacked into TMPDIR"):
        use_packed_kernels(tmp_path)
    assert os.environ["TRITON_CACHE_DIR"] == "as before"
