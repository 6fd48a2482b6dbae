"""The version of this code, from pyproject.toml."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

_NAME = "sam2-amg-server"
_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def find_version() -> str:
    """The version in pyproject.toml in a checkout, else the version of the installed package."""
    if _PYPROJECT.is_file():
        project = tomllib.loads(_PYPROJECT.read_text()).get("project", {})
        if project.get("name") == _NAME:
            return project["version"]
    return metadata.version(_NAME)
