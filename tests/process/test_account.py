"""Accounts without a name or a home, which containers have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers import ROOT

from sam2_amg.process.account import make_writable

NAMELESS = 54321
SCRIPT = f"""
import getpass, os
from sam2_amg.process.account import complete_account
os.setuid({NAMELESS})
complete_account()
print(getpass.getuser(), os.environ.get("TRITON_HOME"))
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def told(**environment: str) -> str:
    """What a process of a user without a name finds."""
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": "/tmp", **environment}
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@as_root
def test_a_user_without_a_name_and_a_home() -> None:
    assert told(HOME="/") == f"uid-{NAMELESS} /tmp/triton_uid-{NAMELESS}"
    with TemporaryDirectory() as closed:  # as /root is
        assert told(HOME=f"{closed}/home") == f"uid-{NAMELESS} /tmp/triton_uid-{NAMELESS}"
    assert told() == f"uid-{NAMELESS} /tmp/triton_uid-{NAMELESS}"


@as_root
def test_what_is_there_stays() -> None:
    with TemporaryDirectory() as home:
        os.chown(home, NAMELESS, -1)
        assert told(HOME=home, USER="someone") == "someone None"
    assert told(HOME="/", USER="someone", TRITON_HOME="/elsewhere") == "someone /elsewhere"


def test_a_folder_that_is_there_and_takes_no_files() -> None:
    with pytest.raises(OSError, match="/proc"):
        make_writable(Path("/proc"))
