"""The C++ compiler is tried before it is relied on, and the next one takes the place of one that does not work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch._inductor import config as inductor_config

from sam2_amg.compilation.compiler import compilers, fault_of, use_working_compiler
from sam2_amg.errors import StartupError

GXX = shutil.which("g++")
needs_gxx = pytest.mark.skipif(GXX is None, reason="no C++ compiler here")


def script(path: Path, line: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def static_compiler(tmp_path: Path) -> str:
    """Links its own C++ library into what it writes."""
    return script(tmp_path / "static-g++", f'exec {GXX} -static-libstdc++ -static-libgcc "$@"')


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What `use_working_compiler` sets is put back."""
    monkeypatch.setenv("CXX", os.environ.get("CXX", ""))
    with inductor_config.patch({"cpp.cxx": inductor_config.cpp.cxx}):
        yield monkeypatch


@needs_gxx
def test_a_compiler_that_works() -> None:
    assert GXX is not None
    assert fault_of(GXX) is None


@needs_gxx
def test_a_compiler_that_links_its_own_library_is_of_no_use(static_compiler: str) -> None:
    assert fault_of(static_compiler) == "it links its own C++ library statically"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("echo out of licences >&2; exit 3", "out of licences"),
        ("exit 3", "exit status 3"),
        ("exit 0", "OSError"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
    ],
)
def test_a_compiler_that_fails_is_of_no_use(tmp_path: Path, line: str, fault: str) -> None:
    assert fault in str(fault_of(script(tmp_path / "g++", line)))


def test_a_compiler_that_is_not_there_is_of_no_use() -> None:
    assert fault_of("/no/such/compiler") == "No such file or directory"


def test_compilers_are_tried_in_order_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plus, other, link = (script(tmp_path / place, "exit 0") for place in ("a/g++", "b/g++", "b/c++"))
    (tmp_path / "a" / "c++").symlink_to(plus)
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/none")
    monkeypatch.delenv("CXX", raising=False)
    assert list(compilers()) == [plus, other, link]
    monkeypatch.setenv("CXX", "c++")
    assert list(compilers()) == ["c++", other, link]
    monkeypatch.setenv("CXX", other)
    assert list(compilers()) == [other, plus, link]


@needs_gxx
def test_the_next_one_that_works_is_used_and_named(static_compiler: str, restored: pytest.MonkeyPatch) -> None:
    restored.setenv("CXX", static_compiler)
    said: list[str] = []
    use_working_compiler(said.append)
    assert os.environ["CXX"] == GXX
    assert inductor_config.cpp.cxx == (None, GXX)
    assert said == [
        f"{static_compiler} does not work (it links its own C++ library statically); compiling C++ with {GXX}"
    ]


def test_none_that_works_is_an_error(tmp_path: Path, restored: pytest.MonkeyPatch) -> None:
    restored.setenv("PATH", str(tmp_path))
    restored.delenv("CXX")
    with pytest.raises(StartupError, match=r"needs a C\+\+ compiler, but g\+\+ is missing; install g\+\+, or set CXX"):
        use_working_compiler()
    restored.setenv("CXX", "/no/such/compiler")
    with pytest.raises(StartupError, match=r"/no/such/compiler does not work \(No such file or directory\); install"):
        use_working_compiler()
