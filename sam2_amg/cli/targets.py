"""Which file the masks of each photograph go to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sam2_amg.cli.arguments import path_of
from sam2_amg.errors import StartupError, os_errors

STDOUT = "-"
FORMATS_BY_SUFFIX = {".json": "records", ".png": "png", ".npz": "npz"}
_SUFFIXES = {"png": ".png", "labelmap": ".png", "npz": ".npz"}  # all others are JSON


Target = tuple[Path, Path | None]
"""A photograph, and the file for its masks; None for standard output."""


def format_of(output: str, photos: Sequence[Path]) -> str:
    """The format that the name after -o stands for; records for a folder and for standard output.

    Raises StartupError for the name of a file that stands for none.
    """
    if output == STDOUT or _is_folder(output, photos):
        return "records"
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS_BY_SUFFIX:
        known = ", ".join(FORMATS_BY_SUFFIX)
        raise StartupError(f"-o {output} does not end in {known}; give such a name, or --format, or an existing folder")
    return FORMATS_BY_SUFFIX[suffix]


def targets_of(photos: Sequence[Path], output: str, format: str) -> tuple[Target, ...]:
    """Where the masks of each photograph go; makes the folder that -o names if there is none.

    In a folder the files are called like the photographs. Raises StartupError for places that cannot be written, and
    if a file would be written twice or over a photograph.
    """
    if output == STDOUT:
        if len(photos) > 1:
            raise StartupError(f"-o {STDOUT} takes one photograph, not {len(photos)}; give a folder")
        return ((photos[0], None),)
    path = path_of(output)
    is_folder = _is_folder(output, photos)
    if is_folder:
        if (path.exists() and not path.is_dir()) or (not path.exists() and path.suffix.lower() in FORMATS_BY_SUFFIX):
            raise StartupError(f"-o {output} is a file, and there are {len(photos)} photographs; give a folder")
        files = [path / f"{photo.stem}{suffix_of(format)}" for photo in photos]
    else:
        if not path.parent.is_dir():
            raise StartupError(f"-o {output}: there is no folder {path.parent}; make it, or give another")
        files = [path]
    _require_apart(photos, files)
    if is_folder:
        with os_errors(f"-o {output} cannot be made", "give another folder"):
            path.mkdir(parents=True, exist_ok=True)
    return tuple(zip(photos, files, strict=True))


def suffix_of(format: str) -> str:
    """What the names of files of a format end in, as `answers.render` has it, which --help cannot wait for."""
    return _SUFFIXES.get(format, ".json")


def _is_folder(output: str, photos: Sequence[Path]) -> bool:
    """With one photograph, too, if the name has no suffix: a pattern of the shell may fit one or several."""
    path = path_of(output)
    is_name_of_one = not path.suffix and not path.exists()
    return len(photos) > 1 or output.endswith(os.sep) or path.is_dir() or is_name_of_one


def _require_apart(photos: Sequence[Path], files: Sequence[Path]) -> None:
    there = {photo.resolve() for photo in photos}
    writers: dict[Path, Path] = {}
    for photo, file in zip(photos, files, strict=True):
        if file.resolve() in there:
            raise StartupError(f"-o: {file} is one of the photographs, and would be overwritten; give another name")
        first = writers.setdefault(file, photo)
        if first != photo:
            raise StartupError(
                f"-o: {first} and {photo} would both be written to {file}; rename one, or run them apart"
            )
