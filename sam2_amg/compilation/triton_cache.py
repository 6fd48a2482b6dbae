"""This project's compiled Triton kernels in one file next to the packages.

A server that loads it compiles no kernels and needs no C compiler. Triton caches compiled kernels in a folder
(TRITON_CACHE_DIR) by hashes of source, compiler and options. The cache contains absolute paths; `unpack` rewrites them.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from zipfile import ZipFile

from sam2_amg.errors import StartupError

NAME = "kernels.zip"
_GROUPS = "__grp__*"  # JSON files that list the files of a kernel: {"child_paths": {name: path}}


def keep_kernels_in(cache: Path) -> None:
    """Sets `cache` as Triton's cache folder in this process."""
    os.environ["TRITON_CACHE_DIR"] = str(cache)


def pack(cache: Path, file: Path) -> None:
    """Writes Triton's cache folder to `file`, a zip archive."""
    with ZipFile(file, "w") as archive:
        for path in sorted(cache.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(cache))


def unpack(file: Path, cache: Path) -> None:
    """Inverse of `pack`. `cache` may differ from the folder that was packed."""
    with ZipFile(file) as archive:
        archive.extractall(cache)
    for group in cache.rglob(_GROUPS):
        names = json.loads(group.read_text())["child_paths"]
        group.write_text(json.dumps({"child_paths": {name: str(group.parent / name) for name in names}}))


def use_packed_kernels(folder: Path) -> None:
    """Unpacks the kernels in `folder` into a temporary cache folder, which is deleted when the process ends.

    The file is native code: `manifest.check_packages` must have checked it. Raises StartupError if it cannot be
    unpacked.
    """
    try:
        cache = Path(tempfile.mkdtemp(prefix="sam2-amg-kernels-"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        unpack(folder / NAME, cache)
    except OSError as error:
        needs = "it needs free space and must allow execution"
        raise StartupError(f"{folder / NAME} cannot be unpacked into TMPDIR ({error.strerror}); {needs}") from error
    keep_kernels_in(cache)
