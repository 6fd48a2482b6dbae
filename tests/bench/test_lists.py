"""Lists of masks that a run keeps."""

from __future__ import annotations

from pathlib import Path

from bench.harness.lists import find_list, keep_list


def test_the_same_answers_make_the_same_file(tmp_path: Path) -> None:
    answers = [b'{"mask_0": {"size": [1, 4], "counts": [4]}}\n', b"{}\n"]
    for folder in ("a", "b"):
        keep_list(tmp_path / folder, "ao", answers)
    first, second = (find_list(tmp_path / folder, "ao").read_bytes() for folder in ("a", "b"))
    assert first == second
    assert first[4:8] == bytes(4)  # no time
