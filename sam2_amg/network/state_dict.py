"""The state dict in a checkpoint file, whichever training wrote it. No code in a file runs."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor

from sam2_amg.errors import StartupError

logger = logging.getLogger(__name__)

SUFFIXES = (".pt", ".pth", ".safetensors")
_PLACES = ("model", "state_dict", "model_state_dict")  # the keys under which trainings keep the weights
_ENCODER = "image_encoder."  # what the names of SAM 2.1's weights begin with, some of them
# What wrappers put into names: DistributedDataParallel and AveragedModel, torch.compile, Lightning
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model)\.)+|(?<=\.)(?:(?:module|_orig_mod)\.)+")
_ALONE = "save the weights alone, by torch.save(model.state_dict(), FILE) or as safetensors"
_MOST_NAMED = 5  # keys that a message repeats


class _PassedOver:
    """Stands for an object of a class that is not torch's. It takes what the pickle has for it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _PassedOver:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_state(path: Path, way_out: str) -> dict[str, Tensor]:
    """The weights of a checkpoint file, on the CPU, by sam2's names: torch's format or, by its suffix, safetensors.

    The state dict stands under "model", "state_dict" or "model_state_dict", or is the file itself. What else training
    kept beside it, and what wrappers put before the names, is passed over and logged. Raises StartupError, which ends
    with `way_out`, if the file cannot be read or has no state dict.
    """
    loaded = _load(path, way_out)
    file = loaded if isinstance(loaded, dict) else {}
    found = next((file[name] for name in _PLACES if _tensors_of(file.get(name))), file)
    tensors = _tensors_of(found)
    if not tensors:
        raise StartupError(f"{path} is not a SAM 2.1 checkpoint (it has no state dict under 'model'); {way_out}")
    state, prefixes = _unwrap(tensors, path, way_out)
    beside = [name for name, value in file.items() if value is not found] if found is not file else []
    inner = [name for name in found if name not in tensors or _WRAPPERS.sub("", name) not in state]
    for what, names in (("keys", [*beside, *inner]), ("prefixes", prefixes)):
        if names:
            logger.info("%s: passed over the %s %s", path, what, shown(sorted(map(str, names))))
    return state


def shown(names: Sequence[str]) -> str:
    """The first few of some names, and how many there are beside them."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _load(path: Path, way_out: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path, backend="pread")  # a mapped file could change after it is loaded
        return _load_torch(path)
    except PermissionError as error:
        raise StartupError(f"{path} cannot be read ({error.strerror}); change its permissions") from error
    except Exception as error:  # torch raises many types for a damaged file
        if isinstance(error, UnpicklingError) and (is_zipfile(path) or "GLOBAL" in str(error)):
            raise StartupError(f"{path} holds objects that could run code, and is not loaded; {_ALONE}") from error
        raise StartupError(f"{path} is truncated, damaged or not a checkpoint; {way_out}") from error


def _load_torch(path: Path) -> Any:
    """torch.load of tensors and Python's own types; objects of other classes become `_PassedOver`.

    Of the format of torch before 1.6 there is no list of classes: files with other classes are refused.
    """
    unknown: list[Any] = []
    with contextlib.suppress(ValueError):
        unknown = [(_PassedOver, name) for name in torch.serialization.get_unsafe_globals_in_checkpoint(path)]
    with torch.serialization.safe_globals(unknown):
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors_of(value: Any) -> dict[str, Tensor]:
    if not isinstance(value, dict):
        return {}
    return {name: tensor for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, Tensor)}


def _unwrap(state: dict[str, Tensor], path: Path, way_out: str) -> tuple[dict[str, Tensor], set[str]]:
    """A state dict by names without wrappers, without what is outside of a wrapped model; and the wrappers' prefixes.

    Raises StartupError if two tensors have one name then.
    """
    bare = {name: _WRAPPERS.sub("", name) for name in state}
    kept = list(state)
    if not any(name.startswith(_ENCODER) for name in state):  # if anything is wrapped, it is the whole model
        kept = [name for name in state if bare[name] != name] or kept
    found = {bare[name]: state[name] for name in kept}
    if len(found) < len(kept):
        (twice, _), *_ = Counter(bare[name] for name in kept).most_common()
        raise StartupError(f"{path} has two tensors {twice}, as of two models; {way_out}")
    return found, {prefix for name in kept for prefix in _WRAPPERS.findall(name)}
