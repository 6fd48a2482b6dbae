"""Configuration: frozen dataclasses, built once from the command line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from PIL import Image

from sam2_amg.errors import ParameterError, StartupError

# Pillow refuses images with more than twice MAX_IMAGE_PIXELS pixels, to guard against decompression bombs.
PILLOW_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)

# Where `Mode.agreement` is measured.
AGREEMENT_SOURCE = "results/accuracy-demo-h200-torch2.11.0.md"


class Mode(Enum):
    """How masks are made. Only `modes/build.py` branches on the mode; other code reads the properties."""

    BASELINE = "baseline"
    AO = "ao"
    FAST = "fast"
    FURIOUS = "furious"

    @property
    def flags(self) -> str:
        """The command-line flags that select the mode."""
        return {Mode.AO: "", Mode.FURIOUS: "--fast --furious"}.get(self, f"--{self.value}")

    @property
    def is_compiled(self) -> bool:
        """Whether the network is compiled or loaded from packages."""
        return self in (Mode.FAST, Mode.FURIOUS)

    @property
    def is_pipeline(self) -> bool:
        """Whether the mode runs this project's stages instead of sam2's own generator."""
        return self is not Mode.BASELINE

    @property
    def devices(self) -> tuple[str, ...]:
        """The device types that the mode runs on."""
        return ("cuda",) if self is Mode.FURIOUS else ("cpu", "cuda")

    @property
    def agreement(self) -> str:
        """How far the mode's masks agree with baseline's, as measured in `AGREEMENT_SOURCE`."""
        measured = {Mode.AO: ("0", "1.000000"), Mode.FAST: ("0", "0.99995"), Mode.FURIOUS: ("62", "0.98958")}
        if self not in measured:
            return "defines the answer"
        images, miou = measured[self]
        return (
            f"another number of masks than baseline in {images} of 360 images, matched mIoU {miou} "
            "(crops of 20 photographs, demo model, NVIDIA H200)"
        )

    def require_device(self, device: str) -> None:
        """Raises StartupError if the mode does not run on a device type, "cpu" or "cuda"."""
        if "cpu" not in self.devices and device != "cuda":
            raise StartupError(f"{self.flags} needs a CUDA GPU, but the device is {device}; give --fast alone")


_DAY = 86400  # seconds
MOST_TOGETHER = 32  # images; of 1024 x 1024 pixels each has 1,024 windows, and torch attends to 65,535 at a time


MOST_POINTS = 256 * 256  # of the grid of a crop layer

PointGrid = tuple[tuple[float, float], ...]
"""Points (x, y) of a crop layer, in [0, 1] x [0, 1]."""


def _require(condition: bool, name: str, need: str, value: object) -> None:
    if not condition:
        raise ParameterError(name, f"must be {need}, not {value}")


def require_batch_size(batch_size: int) -> None:
    """Raises StartupError for a batch size outside 1 to `MOST_TOGETHER`."""
    _require(1 <= batch_size <= MOST_TOGETHER, "batch_size", f"from 1 to {MOST_TOGETHER}", batch_size)


def require_port(port: int) -> None:
    """Raises StartupError for a number that is not a port."""
    _require(0 <= port <= 65535, "port", "from 0 to 65535", port)


@dataclass(frozen=True)
class GeneratorConfig:
    """Parameters of the automatic mask generator, with sam2's names, meanings and defaults. Raises ParameterError.

    `point_grids` has a grid a crop layer, the whole image's first; `points_per_side` is then not used.
    `mask_memory_mib` limits the memory, in MiB, of upsampled masks on a CPU; at least one mask is processed at a time.
    Baseline ignores it, and a GPU stores no upsampled masks. If it or `points_per_batch` is None, the mode and the
    device choose the value.
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
    point_grids: tuple[PointGrid, ...] | None = None
    min_mask_region_area: int = 0
    use_m2m: bool = False
    multimask_output: bool = True
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
        _require(-100 <= self.mask_threshold <= 100, "mask_threshold", "from -100 to 100", self.mask_threshold)
        _require(0 <= self.crop_n_layers <= 4, "crop_n_layers", "from 0 to 4", self.crop_n_layers)
        ratio = self.crop_overlap_ratio
        _require(0 <= ratio < 1, "crop_overlap_ratio", "at least 0 and less than 1", ratio)
        factor = self.crop_n_points_downscale_factor
        _require(
            factor >= 1 and (self.point_grids is not None or self.points_per_side >= factor**self.crop_n_layers),
            "crop_n_points_downscale_factor",
            "at least 1, and small enough to leave a point in the last crop layer",
            factor,
        )
        area = self.min_mask_region_area
        _require(0 <= area <= 1 << 30, "min_mask_region_area", f"from 0 to {1 << 30}", area)
        for name in ("use_m2m", "multimask_output"):
            _require(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        if self.point_grids is not None:
            self._require_point_grids(self.point_grids)

    def _require_point_grids(self, grids: tuple[PointGrid, ...]) -> None:
        layers, name = self.crop_n_layers + 1, "point_grids"
        need = (
            f"{layers} grids, one a crop layer with that of the whole image" if layers > 1 else "1 grid without crops"
        )
        _require(len(grids) == layers, name, need, len(grids))
        for grid in grids:
            _require(1 <= len(grid) <= MOST_POINTS, name, f"grids of 1 to {MOST_POINTS} points", len(grid))
            for point in grid:
                inside = len(point) == 2 and all(0 <= coordinate <= 1 for coordinate in point)
                _require(inside, name, "grids of points (x, y) from 0 to 1", point)

    @property
    def points_by_layer(self) -> tuple[int, ...]:
        """The number of points in a crop of each layer, the whole image first."""
        if self.point_grids is not None:
            return tuple(map(len, self.point_grids))
        factors = (self.crop_n_points_downscale_factor**layer for layer in range(self.crop_n_layers + 1))
        return tuple((self.points_per_side // factor) ** 2 for factor in factors)

    @property
    def prompts(self) -> int:
        """How many prompts an image takes: the points of all crops, and with `use_m2m` each of their masks."""
        points = sum(4**layer * count for layer, count in enumerate(self.points_by_layer))
        masks = (3 if self.multimask_output else 1) if self.use_m2m else 0
        return points * (1 + masks)


@dataclass(frozen=True)
class ModelConfig:
    """Which model runs, and how.

    `load_exported` is a folder of packages to run instead of compiling. Up to `batch_size` waiting images are encoded
    together.
    """

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
            raise StartupError("--batch_size contradicts --baseline, which encodes one image at a time; leave one out")


MOST_REPLICAS = 1024
MOST_SLOTS = 4096


@dataclass(frozen=True)
class ReplicaConfig:
    """How many replicas make masks, each with a device of its own, and where.

    There are between `least` and `most`, as the queue demands. `ray_address` is that of a Ray cluster ("auto" for the
    one that this host belongs to); None starts Ray on this host, for as long as this process runs.
    """

    least: int
    most: int
    ray_address: str | None = None

    def __post_init__(self) -> None:
        need = f"N or MIN:MAX, of 1 to {MOST_REPLICAS}"
        _require(1 <= self.least <= self.most <= MOST_REPLICAS, "replicas", need, f"{self.least}:{self.most}")


@dataclass(frozen=True)
class Limits:
    """What the server accepts, and how long things may take, in seconds. A request over a limit gets a 4xx, 503 or 504
    that names the limit."""

    max_pixels: int = 8192 * 8192
    max_side: int = 16384  # sam2 counts a row's pixels in int16
    max_body_mib: int = 64
    queue_size: int = 16
    request_timeout: float = 600.0
    receive_timeout: float = 60.0
    send_timeout: float = 60.0
    max_held_mib: int = 1024
    decode_timeout: float = 10.0
    max_decoded_mib: int = 1088  # of decoded pixels, and of decoders' working memory, of all requests together
    decoders: int | None = None  # processes; None for one a core, at most 4
    stuck_timeout: float = 600.0
    drain_timeout: float = 30.0
    drain_delay: float = 0.0
    max_points_per_side: int | None = None  # of a request; None for 64, or the server's own if more
    max_crop_n_layers: int | None = None  # of a request; None for 2, or the server's own if more
    max_batch_images: int = 100

    def __post_init__(self) -> None:
        need = f"from 1 to {PILLOW_MAX_PIXELS} (Pillow's own limit)"
        _require(1 <= self.max_pixels <= PILLOW_MAX_PIXELS, "max_pixels", need, self.max_pixels)
        _require(1 <= self.max_body_mib <= 2048, "max_body_mib", "from 1 to 2048", self.max_body_mib)
        _require(1 <= self.queue_size <= MOST_SLOTS, "queue_size", f"from 1 to {MOST_SLOTS}", self.queue_size)
        for name in ("request_timeout", "receive_timeout", "send_timeout", "stuck_timeout"):
            timeout = getattr(self, name)
            _require(0 < timeout <= _DAY, name, f"more than 0 and at most {_DAY} seconds", timeout)
        for name in ("drain_timeout", "drain_delay"):
            _require(0 <= getattr(self, name) <= _DAY, name, f"from 0 to {_DAY} seconds", getattr(self, name))
        need = "at least --max_body_mib, and at most 1048576"
        _require(self.max_body_mib <= self.max_held_mib <= 1 << 20, "max_held_mib", need, self.max_held_mib)
        timeout = self.decode_timeout
        _require(0 < timeout <= 3600, "decode_timeout", "more than 0 and at most 3600 seconds", timeout)
        _require(1 <= self.max_decoded_mib <= 1 << 20, "max_decoded_mib", f"from 1 to {1 << 20}", self.max_decoded_mib)
        _require(self.decoders is None or 1 <= self.decoders <= 64, "decoders", "from 1 to 64", self.decoders)
        _require(
            1 <= self.max_batch_images <= 1 << 16, "max_batch_images", f"from 1 to {1 << 16}", self.max_batch_images
        )

    @property
    def decoder_count(self) -> int:
        """How many processes decode images."""
        return self.decoders or min(4, len(os.sched_getaffinity(0)))


_REQUEST_POINTS_PER_SIDE, _REQUEST_CROP_LAYERS = 64, 2


@dataclass(frozen=True)
class Bounds:
    """How much work a request may ask for."""

    max_points_per_side: int = _REQUEST_POINTS_PER_SIDE
    max_crop_n_layers: int = _REQUEST_CROP_LAYERS

    @property
    def most_points(self) -> int:
        """How many points a grid of the request's own may have."""
        return self.max_points_per_side**2


@dataclass(frozen=True)
class ServerConfig:
    """All settings of `serve`'s command line."""

    model: ModelConfig
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    port: int = 5000
    compile_cache: Path | None = None  # the compilers' cache folder; None for their defaults
    api_key_file: Path | None = None
    cors_origin: str | None = None
    log_format: str = "text"
    replicas: ReplicaConfig | None = None  # None: this process makes the masks

    def __post_init__(self) -> None:
        require_port(self.port)
        for name, most, own in (
            ("max_points_per_side", 256, self.generator.points_per_side),
            ("max_crop_n_layers", 4, self.generator.crop_n_layers),
        ):
            value = getattr(self.limits, name)
            need = f"from {own}, the server's own {name.removeprefix('max_')}, to {most}"
            _require(value is None or own <= value <= most, name, need, value)

    @property
    def bounds(self) -> Bounds:
        """How much work a request may ask for."""
        side, layers = self.limits.max_points_per_side, self.limits.max_crop_n_layers
        own = self.generator
        return Bounds(
            max(_REQUEST_POINTS_PER_SIDE, own.points_per_side) if side is None else side,
            max(_REQUEST_CROP_LAYERS, own.crop_n_layers) if layers is None else layers,
        )


@dataclass(frozen=True)
class ExportConfig:
    """All settings of `export`'s command line."""

    checkpoint_dir: Path
    model_type: str
    mode: Mode
    device: str
    output: Path
    generator: GeneratorConfig
    batch_size: int
