"""What lies in results/ fits together: pages are those of the figures, agreement is that of the lists."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
from helpers import ROOT

from bench.__main__ import add_accuracy
from bench.harness.lists import find_list, keep_list
from bench.report.pages import page_of

RESULTS = sorted((ROOT / "results").glob("*-torch*.json"))
LISTS = ROOT / "results" / "lists"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_pages_are_made_of_figures(path: Path) -> None:
    result = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == page_of(result)


@pytest.mark.parametrize(
    "folder", sorted(path for path in LISTS.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_kept_lists_give_the_same_agreement_again(folder: Path) -> None:
    result = json.loads((ROOT / "results" / f"{folder.name}.json").read_text())
    again = deepcopy(result)
    add_accuracy(again, folder)
    assert again == result


def test_the_same_answers_make_the_same_file(tmp_path: Path) -> None:
    answers = [b'{"mask_0": {"size": [1, 4], "counts": [4]}}\n', b"{}\n"]
    for folder in ("a", "b"):
        keep_list(tmp_path / folder, "ao", answers)
    first, second = (find_list(tmp_path / folder, "ao").read_bytes() for folder in ("a", "b"))
    assert first == second
    assert first[4:8] == bytes(4)  # no time
