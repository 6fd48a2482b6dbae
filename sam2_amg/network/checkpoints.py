"""Checkpoints: finds the file of a model type, downloads it if missing, checks that it fits and loads it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import yaml
from sam2.build_sam import build_sam2
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import StartupError
from sam2_amg.network.model_types import MODEL_TYPES, ModelType, is_standard
from sam2_amg.network.state_dict import SUFFIXES, read_state, shown

logger = logging.getLogger(__name__)

PUBLISHED_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
URL_VARIABLE = "SAM2_AMG_CHECKPOINT_URL"
_DOWNLOAD_TIMEOUT = 30.0  # seconds without data
_CHUNK = 1 << 20  # bytes
_POSITION_SCALE = 0.02
# operations that initialise parameters: functions of torch.nn.init, and the tensor methods that others of them call
_FILLING = {"kaiming_uniform_", "uniform_", "normal_", "fill_", "zero_", "erfinv_", "mul_", "add_", "clamp_"}


def _demo_config() -> dict[str, Any]:
    return yaml.safe_load((DEMO_DIR / MODEL_TYPES["demo"].config).read_text())


def build_model(kind: ModelType, overrides: Sequence[str] = ()) -> SAM2Base:
    """A model of this type with random weights, on the CPU, in float32, from sam2's own builder.

    `overrides` are further changes of its configuration in hydra's syntax (`model.image_size=256`).
    """
    base, own = configuration_of(kind)
    return build_sam2(base, None, device="cpu", hydra_overrides_extra=[*own, *overrides])


def configuration_of(kind: ModelType) -> tuple[str, list[str]]:
    """The name of one of sam2's configurations, and this model type's overrides in hydra's syntax."""
    if kind.download:
        return kind.config, []
    config = _demo_config()
    return config["base"], config["overrides"]


def image_size_of(kind: ModelType) -> int:
    """The side of the model's square input, in pixels."""
    if kind.download:
        return 1024
    (size,) = (line.split("=")[1] for line in _demo_config()["overrides"] if line.startswith("model.image_size="))
    return int(size)


@torch.no_grad()
def fill_position_embeddings(model: SAM2Base) -> None:
    """Fills the image encoder's position embeddings with random values; sam2 initialises them to zero."""
    for name, parameter in model.named_parameters():
        if "pos_embed" in name:
            parameter.normal_(0, _POSITION_SCALE)


def find_checkpoint(place: Path, kind: ModelType) -> Path:
    """The checkpoint's path: `place` if it is a file, or the file of this model type in the folder `place`.

    Downloads an official checkpoint that is missing from the folder. Raises StartupError.
    """
    if place.is_file():
        return place
    if place.suffix in SUFFIXES and not place.exists():
        raise StartupError(f"CHECKPOINT_DIR {place} does not exist; give a checkpoint file, or a folder of checkpoints")
    if place.exists() and not place.is_dir():
        raise StartupError(f"CHECKPOINT_DIR {place} is neither a file nor a folder; give one of them")
    path = place / kind.file
    if path.is_file():
        return path
    if not kind.download:
        raise StartupError(f"{path} is missing; the demo model is in {DEMO_DIR}: give that folder, or no arguments")
    base = os.environ.get(URL_VARIABLE, PUBLISHED_URL).rstrip("/")
    _download(f"{base}/{kind.file}", path)
    return path


def _download(url: str, path: Path) -> None:
    """Downloads to a temporary file next to `path`, and renames it when complete."""
    way_out = f"download {url} by other means and put it at {path}"
    if URL_VARIABLE in os.environ:
        way_out = f"set {URL_VARIABLE}, which gives this address, to another one, or {way_out}"
    is_new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with open(handle, "wb") as file:
                _copy(url, file, path.name)
            os.chmod(part, 0o644)  # temporary files have mode 0600
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # closes the connection
        if is_new:
            with contextlib.suppress(OSError):  # the folder does not exist, or is no longer empty
                path.parent.rmdir()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StartupError(f"{path} is missing, and {url} could not be downloaded ({reason}); {way_out}") from error


def _copy(url: str, target: Any, label: str) -> None:
    """Downloads `url` into an open file, with a progress bar. Raises OSError if the download is incomplete."""
    logger.info("downloading %s", url)
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT) as answer:
        length = answer.headers.get("Content-Length")
        if not length and not answer.chunked:
            raise OSError("the server does not send Content-Length, so an incomplete download cannot be detected")
        total = int(length) if length else None
        with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=label) as progress:
            while chunk := answer.read(_CHUNK):
                target.write(chunk)
                progress.update(len(chunk))
            if total is not None and progress.n != total:
                raise OSError(f"the connection closed after {progress.n} of {total} bytes")


def load_model(path: Path, kind: ModelType, device: torch.device) -> SAM2Base:
    """The model of a checkpoint, in float32, for inference. Raises StartupError if the file is not one of `kind`.

    `read_state` says which files are read.
    """
    state = read_state(path, _again(path, kind))
    with _Unfilled():
        model = build_model(kind)
    expected = model.state_dict()
    _check_fit(state, expected, path, kind)
    filled = {name: value.to(device, expected[name].dtype) for name, value in state.items()}
    _check_numbers(filled, path, kind)
    model.load_state_dict(filled, assign=True)
    return model.requires_grad_(False).eval().to(device)


class _Unfilled(TorchFunctionMode):
    """Skips parameter initialisation, because a checkpoint replaces the values. Initialising large takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function.__name__ in _FILLING:
            target = args[0] if args else kwargs["tensor"]
            if isinstance(target, nn.Parameter):
                return target
        return function(*args, **kwargs)


def _trunk_of(state: dict[str, Tensor]) -> tuple[int, int] | None:
    """Width and depth of the Hiera trunk in a state dict; None without a trunk."""
    patches = state.get("image_encoder.trunk.patch_embed.proj.weight")
    blocks = {name.split(".")[3] for name in state if name.startswith("image_encoder.trunk.blocks.")}
    return None if patches is None or patches.ndim == 0 else (patches.shape[0], len(blocks))


def _check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path, kind: ModelType) -> None:
    trunk = _trunk_of(state)
    for other in MODEL_TYPES.values():
        if trunk == other.trunk and other is not kind:
            raise StartupError(f"{path} is a checkpoint of MODEL_TYPE {other.name}, not {kind.name}; give that type")
    wrong = {name for name, value in state.items() if name in expected and value.shape != expected[name].shape}
    problems = {
        "lacks": expected.keys() - state.keys(),
        "has unknown": state.keys() - expected.keys(),
        "has a wrong shape for": wrong,
    }
    for problem, names in problems.items():
        if names:
            way_out = f"put the right {kind.file} there" if is_standard(path, kind) else "give another file"
            raise StartupError(
                f"{path} is not a SAM 2.1 {kind.name} checkpoint: it {problem} {shown(sorted(names))} "
                f"({len(names)} such keys); {way_out}"
            )


def _check_numbers(state: dict[str, Tensor], path: Path, kind: ModelType) -> None:
    """Raises StartupError for NaN and infinity, with which a model finds no masks in any image, and says nothing."""
    wrong = sorted(name for name, value in state.items() if not value.isfinite().all())
    if wrong:
        raise StartupError(f"{path} has weights that are NaN or infinite: {shown(wrong)}; {_again(path, kind)}")


def _again(path: Path, kind: ModelType) -> str:
    """What to do about a file that cannot be read."""
    if not is_standard(path, kind):
        return "save it again, or give another file"
    return "delete it and start again to download it anew" if kind.download else "restore it from the repository"
