"""A folder holds the outputs of one set of settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam2_amg.batch.manifest import NAME, Manifest, settle
from sam2_amg.batch.stores.folder import FolderStore
from sam2_amg.errors import StartupError

SETTINGS = {"format": "jsonl", "model": {"type": "demo", "mode": "ao"}, "parameters": {"point_grids": ((0.5, 0.5),)}}


def test_the_first_run_writes_it_and_later_ones_agree(tmp_path: Path) -> None:
    store, said = FolderStore(tmp_path), list[str]()
    settle(store, Manifest(SETTINGS, {"torch": "1"}), said.append)
    there = json.loads((tmp_path / NAME).read_text())
    assert there["settings"]["model"] == SETTINGS["model"]
    assert there["settings_hash"] == Manifest(SETTINGS, {}).hash
    settle(store, Manifest(SETTINGS, {"torch": "1"}), said.append)
    assert said == []
    settle(store, Manifest(SETTINGS, {"torch": "2"}), said.append)
    assert "torch 1, this is 2" in said[0]


def test_other_settings_are_named(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    settle(store, Manifest(SETTINGS, {}), print)
    other = {"format": "coco", "model": {"type": "demo", "mode": "fast"}, "parameters": SETTINGS["parameters"]}
    with pytest.raises(StartupError) as refused:
        settle(store, Manifest(other, {}), print)
    assert 'format "jsonl", now "coco"' in str(refused.value)
    assert 'model.mode "ao", now "fast"' in str(refused.value)
    assert "parameters" not in str(refused.value)


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("[1, 2]")
    with pytest.raises(StartupError, match="is no manifest"):
        settle(FolderStore(tmp_path), Manifest(SETTINGS, {}), print)
