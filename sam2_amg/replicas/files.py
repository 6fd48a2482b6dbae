"""The files that replicas need: found under the same path, or copied from the front's node; their SHA-256 decides."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sam2_amg.config import ModelConfig
from sam2_amg.errors import StartupError
from sam2_amg.network.checkpoints import find_checkpoint
from sam2_amg.network.model_types import find_model_type
from sam2_amg.network.weights import hash_checkpoint, hash_file

Read = Callable[[str, int], bytes]
"""A piece of a file of the front's node, from an offset on; empty at its end."""


@dataclass(frozen=True)
class ModelFiles:
    """The checkpoint and the packages: absolute path -> SHA-256."""

    checkpoint: tuple[str, str]
    packages: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (self.checkpoint[0], *(path for path, _ in self.packages))


def files_of(model: ModelConfig) -> ModelFiles:
    """The files of a model here. Raises StartupError if there is no checkpoint."""
    checkpoint = find_checkpoint(model.checkpoint_dir, find_model_type(model.model_type)).absolute()
    folder = model.load_exported
    packages = sorted(path.absolute() for path in folder.rglob("*") if path.is_file()) if folder else []
    return ModelFiles(
        (str(checkpoint), hash_checkpoint(checkpoint)), tuple((str(path), hash_checkpoint(path)) for path in packages)
    )


def local_model(model: ModelConfig, files: ModelFiles, read: Read, cache: Path | None = None) -> ModelConfig:
    """The model with paths that have these files on this node; what is missing or another is copied into `cache`.

    Raises StartupError if a copy is not what it should be.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sam2_amg"
    path, sha256 = files.checkpoint
    is_there = _is_there(Path(path), sha256)
    model = replace(model, checkpoint_dir=Path(path) if is_there else _copy(path, sha256, cache / sha256[:16], read))
    if model.load_exported and not all(_is_there(Path(each), known) for each, known in files.packages):
        folder = cache / hashlib.sha256(repr(files.packages).encode()).hexdigest()[:16]
        for each, known in files.packages:
            if not _is_there(folder / Path(each).name, known):
                _copy(each, known, folder, read)
        model = replace(model, load_exported=folder)
    return model


def _is_there(path: Path, sha256: str) -> bool:
    return path.is_file() and hash_checkpoint(path) == sha256


def _copy(path: str, sha256: str, folder: Path, read: Read) -> Path:
    """Copies a file into a folder, whole or not at all; where it is then."""
    target = folder / Path(path).name
    partial = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the other replicas of this node wait
            if _is_there(target, sha256):
                return target
            with partial.open("wb") as file:
                while piece := read(path, file.tell()):
                    file.write(piece)
            if hash_file(partial) != sha256:
                partial.unlink()
                raise StartupError(f"{path} has changed since the server started; start it again")
            partial.replace(target)
    except OSError as error:
        raise StartupError(f"{target} cannot be written ({error.strerror or error}); set XDG_CACHE_HOME") from error
    return target
