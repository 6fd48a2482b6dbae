"""The lists of masks that a run keeps: a line of /upload_rle's JSON an image, compressed, a file a system."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path


def keep_list(folder: Path, name: str, answers: Iterable[bytes]) -> None:
    """Writes a system's answers, each with its newline. The same answers make the same file, byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl.gz"
    # no name and no time in the header: they would differ from run to run
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as compressed:
        compressed.writelines(answers)


def find_list(folder: Path, name: str) -> Path:
    """Where a system's answers are kept, or would be: `.jsonl.gz`, or `.jsonl` where only that is there."""
    plain = folder / f"{name}.jsonl"
    compressed = folder / f"{name}.jsonl.gz"
    return plain if plain.exists() and not compressed.exists() else compressed
