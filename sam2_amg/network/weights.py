"""Which weights a checkpoint file holds, by its SHA-256, and whether they are those that are expected."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.network.known_hashes import OFFICIAL_SHA256
from sam2_amg.network.model_types import ModelType, is_standard

logger = logging.getLogger(__name__)
_CHUNK = 1 << 22  # bytes
_hashes: dict[tuple[Path, int, int], str] = {}  # by path, size and time of the last change
_hashing = threading.Lock()  # whoever wants the same hash waits for it


@dataclass(frozen=True)
class Weights:
    """A checkpoint: its file's name, its SHA-256, and whether it is the published one; None if that is not known."""

    file: str
    sha256: str
    official: bool | None


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Lets other threads run."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_checkpoint(path: Path) -> str:
    """`hash_file`, once for a file that does not change."""
    with _hashing:
        stat = path.stat()
        key = path.resolve(), stat.st_size, stat.st_mtime_ns
        if key not in _hashes:
            _hashes[key] = hash_file(path)
        return _hashes[key]


def check_weights(path: Path, kind: ModelType) -> Weights:
    """What a checkpoint is. Logs a warning if it has the published file's name and is another: fine-tuned weights are
    welcome, under whatever name.

    Raises StartupError if it is not the one whose SHA-256 stands in FILE.sha256 beside it, in sha256sum's format. For
    the demo model by its own name and without such a file, the one that ships counts.
    """
    try:
        found = hash_checkpoint(path)
    except OSError as error:
        raise StartupError(f"{path} cannot be read ({error.strerror}); change its permissions") from error
    beside = hash_beside(path)
    shipped = None if kind.download else hash_beside(DEMO_DIR / kind.file)
    published = shipped or OFFICIAL_SHA256.get(kind.file)
    expected = beside or (shipped if is_standard(path, kind) else None)
    if expected not in (None, found):
        raise StartupError(
            f"{path} is damaged or was changed: its SHA-256 is {found}, not {expected}; {_way_out(path)}"
        )
    if published not in (None, found):
        level = logging.WARNING if is_standard(path, kind) else logging.INFO
        logger.log(level, "%s is not the published file: its SHA-256 is %s, not %s", path, found, published)
    return Weights(path.name, found, None if published is None else found == published)


def hash_beside(path: Path) -> str | None:
    """The SHA-256 in FILE.sha256 beside a file; None if there is no such file. Raises StartupError for another text."""
    note = _note_of(path)
    try:
        words = note.read_text().split()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise StartupError(f"{note} cannot be read ({error}); mend it, or remove it") from error
    if not words or not re.fullmatch("[0-9a-f]{64}", words[0]):
        raise StartupError(f"{note} has no SHA-256 in it; write it again: sha256sum {path.name} > {note.name}")
    return words[0]


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _way_out(path: Path) -> str:
    if path.resolve().parent == DEMO_DIR.resolve():
        return f"restore it: reinstall sam2-amg-server, or git checkout {path.name} in a checkout"
    note = _note_of(path)
    return f"restore it; if these weights are yours, say so: sha256sum {path.name} > {note.name}, in {path.parent}"
