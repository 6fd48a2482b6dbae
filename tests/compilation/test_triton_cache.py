"""Kernels that Triton compiled are found again by another process, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from sam2_amg.compilation.aot import environment_kept
from sam2_amg.compilation.triton_cache import NAME, pack, unpack, use_packed_kernels
from sam2_amg.errors import StartupError

# compiles a kernel for Hopper, which takes no GPU, and says whether it was there already
COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def listen(*, cache_hit, **_):
    print("found" if cache_hit else "compiled")

@triton.jit
def double(x, BLOCK: tl.constexpr):
    n = tl.arange(0, BLOCK)
    tl.store(x + n, 2 * tl.load(x + n))

triton.knobs.compilation.listener = listen
source = ASTSource(double, {"x": "*fp32", "BLOCK": "constexpr"}, {"BLOCK": 128})
print(len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]))
"""


def compile_in(cache: Path) -> list[str]:
    script = cache.parent / "compile.py"  # a kernel's source is read from its file
    script.write_text(COMPILE)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    answer = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
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


def test_variables_that_compiling_sets_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With another assembler, which torch's compiler names in TRITON_PTXAS_PATH, a server would find no kernel."""
    monkeypatch.delenv("TRITON_PTXAS_PATH", raising=False)
    monkeypatch.setenv("PATH", "as before")
    before = dict(os.environ)
    with environment_kept():
        os.environ.update(TRITON_PTXAS_PATH="torch's own", PATH="another")
    assert dict(os.environ) == before


def test_what_cannot_be_unpacked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "as before")
    with pytest.raises(StartupError, match=f"{NAME} cannot be unpacked into TMPDIR"):
        use_packed_kernels(tmp_path)
    assert os.environ["TRITON_CACHE_DIR"] == "as before"
