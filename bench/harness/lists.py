"""The lists of masks that a run keeps: a line of /upload_rle's JSON an image, compressed, a file a system."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import orjson


def keep_list(folder: Path, name: str, answers: Iterable[bytes]) -> None:
    """Writes a system's answers, each with its newline. The same answers make the same file, byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    # no name and no time in the header: they would differ from run to run
    path = find_list(folder, name)
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as compressed:
        compressed.writelines(answers)


def find_list(folder: Path, name: str) -> Path:
    """Where a system's answers are kept, or would be."""
    return folder / f"{name}.jsonl.gz"


def count_masks(path: Path) -> list[int]:
    """How many masks each image of a list has."""
    with gzip.open(path) as file:
        return [len(orjson.loads(line)) for line in file]
