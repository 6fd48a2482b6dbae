"""What messages tell a person to type, by what was typed before. tests/test_cli.py has the same of real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import ROOT

from sam2_amg.process.program import SCRIPTS, command_for, prefix_for


@pytest.mark.parametrize(
    ("started", "command", "prefix", "without_script"),
    [
        ("server.py", "python compile_export.py", "compile_export.py", "python -m sam2_amg other"),
        ("/app/server.py", "python compile_export.py", "compile_export.py", "python -m sam2_amg other"),
        ("/venv/bin/sam2-amg", "sam2-amg export", "sam2-amg export", "sam2-amg other"),
        (
            "/code/sam2_amg/__main__.py",
            "python -m sam2_amg export",
            "python -m sam2_amg export",
            "python -m sam2_amg other",
        ),
        ("/venv/pytest/__main__.py", "sam2-amg export", "sam2-amg export", "sam2-amg other"),
    ],
)
def test_names(monkeypatch: pytest.MonkeyPatch, started: str, command: str, prefix: str, without_script: str) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert (command_for("export"), prefix_for("export")) == (command, prefix)
    assert command_for("other") == without_script


def test_scripts_are_there() -> None:
    for name, script in SCRIPTS.items():
        assert f'start("{name}")' in (ROOT / script).read_text()


def test_missing_packages_are_named() -> None:
    """By a Python that has none of them, as that of the system."""
    result = subprocess.run(
        [sys.executable, "-S", ROOT / "server.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "has no package numpy; in a checkout, run `make run` once" in result.stderr
    assert "Traceback" not in result.stderr
