"""Our own kernels as Triton compiled them, in one file beside the packages: a server that has it compiles none of them,
and needs no C compiler.

Triton keeps what it compiled in a folder (TRITON_CACHE_DIR), by hashes of source, compiler and options. It names files
there by their whole paths, so the folder cannot be moved as it is; here it is brought along, and put right.
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
_GROUPS = "__grp__*"  # files that name the files of a kernel: {"child_paths": {name: path}}


def keep_kernels_in(cache: Path) -> None:
    """From now on this process has Triton keep what it compiles in `cache`, and look for it there."""
    os.environ["TRITON_CACHE_DIR"] = str(cache)


def pack(cache: Path, file: Path) -> None:
    """Writes all that Triton keeps in `cache` to `file`."""
    with ZipFile(file, "w") as archive:
        for path in sorted(cache.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(cache))


def unpack(file: Path, cache: Path) -> None:
    """Inverse of `pack`; `cache` may be another folder."""
    with ZipFile(file) as archive:
        archive.extractall(cache)
    for group in cache.rglob(_GROUPS):
        names = json.loads(group.read_text())["child_paths"]
        group.write_text(json.dumps({"child_paths": {name: str(group.parent / name) for name in names}}))


def use_packed_kernels(folder: Path) -> None:
    """Has Triton find the kernels that are packed in `folder`, in a folder of this process alone that goes with it.

    Native code, as packages are: `manifest.check_packages` has passed the file before. Raises StartupError where it
    cannot be unpacked.
    """
    try:
        cache = Path(tempfile.mkdtemp(prefix="sam2-amg-kernels-"))
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
        unpack(folder / NAME, cache)
    except OSError as error:
        needs = "which needs room and must allow execution"
        raise StartupError(f"{folder / NAME} cannot be unpacked into TMPDIR ({error.strerror}), {needs}") from error
    keep_kernels_in(cache)
