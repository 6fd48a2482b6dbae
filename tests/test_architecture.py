"""The floor plan of docs/architecture.md: imports run downward, and only modes/ acts on the mode."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "sam2_amg"
# Each floor imports only what stands below it. Files of one floor may import each other.
FLOORS = (
    ("errors", "process", "demo"),
    ("config",),
    ("decoding",),
    ("postprocess",),
    ("kernels",),
    ("network",),
    ("pipeline", "tuning"),
    ("compilation",),
    ("modes",),
    ("answers",),
    ("parameters",),
    ("server",),
    ("agreement",),
    ("export", "library"),
    ("segment_files", "batch"),
    ("replicas",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports_of(source: str) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def wrong_imports(place: str, source: str) -> list[str]:
    """What a file of the folder or file `place` of the package imports and may not."""
    own = [name.split(".")[1] for name in imports_of(source) if name.startswith("sam2_amg.")]
    others = [name for name in imports_of(source) if name.split(".")[0] in ("bench", "training", "tests")]
    return [name for name in own if name != place and LEVEL[name] >= LEVEL[place]] + others


def test_every_file_has_a_floor() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES} == LEVEL.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    place = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert wrong_imports(place, path.read_text()) == []


def test_an_import_from_above_is_found() -> None:
    assert wrong_imports("kernels", "from sam2_amg.network.decoder import Kept") == ["network"]
    assert wrong_imports("network", "def f():\n    import sam2_amg.modes.build") == ["modes"]
    assert wrong_imports("config", "from sam2_amg import cli") == ["cli"]
    assert wrong_imports("server", "from bench import RESULTS") == ["bench.RESULTS"]
    assert wrong_imports("network", "from sam2_amg.kernels.rle import run_boundaries\nimport torch") == []


def acts_on_the_mode(source: str) -> bool:
    """Whether a file compares something with a mode, or has a table by mode."""

    def names_a_mode(node: ast.AST | None) -> bool:
        return node is not None and any(
            isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "Mode"
            for part in ast.walk(node)
        )

    return any(
        (
            isinstance(node, ast.Compare | ast.match_case)
            and names_a_mode(node.pattern if isinstance(node, ast.match_case) else node)
        )
        or (isinstance(node, ast.Dict) and any(names_a_mode(key) for key in node.keys))
        for node in ast.walk(ast.parse(source))
    )


def test_acting_on_the_mode_is_found() -> None:
    assert acts_on_the_mode("if mode is Mode.FAST: pass")
    assert acts_on_the_mode("x = mode in (Mode.FAST, Mode.FURIOUS)")
    assert acts_on_the_mode("table = {Mode.AO: 1}")
    assert acts_on_the_mode("match mode:\n    case Mode.AO:\n        pass")
    assert not acts_on_the_mode("pair = build(Mode.AO), mode.is_compiled")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_modes_acts_on_the_mode(path: Path) -> None:
    """config.py defines modes, and command lines name them; nothing else compares one."""
    if path.relative_to(PACKAGE).parts[0] in ("modes", "config.py", "cli"):
        return
    assert not acts_on_the_mode(path.read_text())


@pytest.mark.parametrize("folder", ["cli", "network", "compilation", "server", "answers"])
def test_packages_import_nothing_by_themselves(folder: str) -> None:
    """So that --help need not wait for torch."""
    assert list(imports_of((PACKAGE / folder / "__init__.py").read_text())) == []


def test_the_package_itself_imports_nothing_until_it_is_asked() -> None:
    program = (
        "import sys; before = {*sys.modules}; import sam2_amg; new = {*sys.modules} - before; "
        "assert new == {'sam2_amg'}, new; assert 'load' in dir(sam2_amg); "
        "from sam2_amg import StartupError; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("folder", ["decoding", "answers"])
def test_what_runs_in_other_processes_imports_no_torch(folder: str) -> None:
    """These processes are many, and are to be small and soon there."""
    modules = [f"sam2_amg.{folder}.{path.stem}" for path in (PACKAGE / folder).glob("[a-z]*.py")]
    assert len(modules) >= 6
    program = f"import sys, {', '.join(modules)}; sys.exit(bool({{'torch', 'flask'}} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
