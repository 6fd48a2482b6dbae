"""The version of this code; pyproject.toml has it."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

_NAME = "sam2-amg-server"
_PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def find_version() -> str:
    """The version in pyproject.toml where this is a checkout, installed or not; elsewhere that which was installed."""
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text()).get("project", {})
        if project.get("name") == _NAME:
            return project["version"]
    return metadata.version(_NAME)
