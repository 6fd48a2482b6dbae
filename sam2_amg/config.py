"""Configuration: frozen dataclasses, made once from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from PIL import Image

from sam2_amg.errors import StartupError

# Pillow refuses images of more than twice this many pixels by itself (its guard against decompression bombs).
PILLOW_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)


class Mode(Enum):
    """How masks are made, and what other code may ask of it; `modes/build.py` alone acts on which mode it is."""

    BASELINE = "baseline"
    AO = "ao"
    FAST = "fast"
    FURIOUS = "furious"

    @property
    def flags(self) -> str:
        """What asks for it on a command line."""
        return {Mode.AO: "", Mode.FURIOUS: "--fast --furious"}.get(self, f"--{self.value}")

    @property
    def is_compiled(self) -> bool:
        """Whether its network is compiled, or loaded from packages."""
        return self in (Mode.FAST, Mode.FURIOUS)

    @property
    def is_pipeline(self) -> bool:
        """Whether it is made of this project's stages, and not sam2's own generator."""
        return self is not Mode.BASELINE

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of device that it runs on."""
        return ("cuda",) if self is Mode.FURIOUS else ("cpu", "cuda")

    def require_device(self, device: str) -> None:
        """Raises StartupError where the mode is not made for a kind of device, "cpu" or "cuda"."""
        if "cpu" not in self.devices and device != "cuda":
            raise StartupError(f"{self.flags} needs a CUDA GPU, and would run on {device}; give --fast alone")


MOST_TOGETHER = 8  # images; torch.compile gives up on a function after as many shapes


def _require(condition: bool, flag: str, need: str, value: object) -> None:
    if not condition:
        raise StartupError(f"--{flag} must be {need}, not {value}")


def require_batch_size(batch_size: int) -> None:
    """Raises StartupError for a number of images that is not encoded together: each number is compiled by itself."""
    _require(1 <= batch_size <= MOST_TOGETHER, "batch_size", f"from 1 to {MOST_TOGETHER}", batch_size)


def require_port(port: int) -> None:
    """Raises StartupError for what is no port."""
    _require(0 <= port <= 65535, "port", "from 0 to 65535", port)


@dataclass(frozen=True)
class GeneratorConfig:
    """Parameters of the automatic mask generator, with sam2's names, meanings and defaults.

    `mask_memory_mib` is the most memory, in MiB, that masks at the photograph's size may take at a time on a CPU (one
    mask at least); baseline does not know it, and on a GPU no such mask is stored. It and `points_per_batch` are left
    to the mode and the device where None.
    """

    points_per_side: int = 32
    points_per_batch: int | None = None
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    mask_memory_mib: int | None = None

    def __post_init__(self) -> None:
        _require(1 <= self.points_per_side <= 256, "points_per_side", "from 1 to 256", self.points_per_side)
        for name in ("points_per_batch", "mask_memory_mib"):
            value = getattr(self, name)
            _require(value is None or 1 <= value <= 1 << 20, name, f"from 1 to {1 << 20}", value)
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"):
            _require(0 <= getattr(self, name) <= 1, name, "from 0 to 1", getattr(self, name))
        offset = self.stability_score_offset
        _require(0 <= offset <= 100, "stability_score_offset", "from 0 to 100", offset)
        _require(0 <= self.crop_n_layers <= 4, "crop_n_layers", "from 0 to 4", self.crop_n_layers)
        _require(0 <= self.crop_overlap_ratio < 1, "crop_overlap_ratio", "from 0 to below 1", self.crop_overlap_ratio)
        factor = self.crop_n_points_downscale_factor
        _require(
            factor >= 1 and self.points_per_side >= factor**self.crop_n_layers,
            "crop_n_points_downscale_factor",
            "at least 1, and small enough to leave a point in the last crop layer",
            factor,
        )


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, and how. `load_exported` is a folder of packages, which are run instead of compiling; up to
    `batch_size` images that wait at the same time are encoded together."""

    checkpoint_dir: Path
    model_type: str
    mode: Mode = Mode.AO
    device: str = "cpu"
    load_exported: Path | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        self.mode.require_device(self.device)
        require_batch_size(self.batch_size)
        if not self.mode.is_pipeline and self.batch_size > 1:
            raise StartupError("--batch_size contradicts --baseline, which takes one image at a time; leave one out")


@dataclass(frozen=True)
class Limits:
    """What the server accepts. A request beyond a limit gets a 4xx or 503 that names it."""

    max_pixels: int = 8192 * 8192
    max_side: int = 16384  # sam2 counts the pixels of a row in 16 bits
    max_body_mib: int = 64
    queue_size: int = 16
    request_timeout: float = 600.0
    decode_timeout: float = 10.0
    max_decoded_mib: int = 1024  # of decoded pixels, and of what decoders need besides, of all requests together
    decoders: int | None = None  # processes; one a core, at most 4, where None

    def __post_init__(self) -> None:
        need = f"from 1 to {PILLOW_MAX_PIXELS} (Pillow's own limit)"
        _require(1 <= self.max_pixels <= PILLOW_MAX_PIXELS, "max_pixels", need, self.max_pixels)
        _require(1 <= self.max_body_mib <= 2048, "max_body_mib", "from 1 to 2048", self.max_body_mib)
        _require(1 <= self.queue_size <= 256, "queue_size", "from 1 to 256", self.queue_size)
        timeout = self.request_timeout
        _require(0 < timeout <= 86400, "request_timeout", "more than 0 and at most 86400 seconds", timeout)
        timeout = self.decode_timeout
        _require(0 < timeout <= 3600, "decode_timeout", "more than 0 and at most 3600 seconds", timeout)
        _require(1 <= self.max_decoded_mib <= 1 << 20, "max_decoded_mib", f"from 1 to {1 << 20}", self.max_decoded_mib)
        _require(self.decoders is None or 1 <= self.decoders <= 64, "decoders", "from 1 to 64", self.decoders)

    @property
    def decoder_count(self) -> int:
        """How many processes decode images."""
        return self.decoders or min(4, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class ServerConfig:
    """Everything that the command line decides."""

    model: ModelConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    port: int = 5000
    compile_cache: Path | None = None  # where compilers keep what they made; theirs to choose where None

    def __post_init__(self) -> None:
        require_port(self.port)


@dataclass(frozen=True)
class ExportConfig:
    """What the command line of `export` decides."""

    checkpoint_dir: Path
    model_type: str
    mode: Mode
    device: str
    output: Path
    generator: GeneratorConfig
    batch_size: int
