"""The supported sizes of SAM 2.1. Imports nothing slow, because --help needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam2_amg.errors import StartupError


@dataclass(frozen=True)
class ModelType:
    """One size of SAM 2.1. `trunk`, the width of the Hiera trunk and its number of blocks, identifies a checkpoint.

    `config` names one of sam2's own configurations, or a file in `sam2_amg/demo/` (a base and overrides).
    """

    name: str
    file: str
    config: str
    trunk: tuple[int, int]
    download: bool = True


MODEL_TYPES = {
    kind.name: kind
    for kind in (
        ModelType("tiny", "sam2.1_hiera_tiny.pt", "configs/sam2.1/sam2.1_hiera_t.yaml", (96, 12)),
        ModelType("small", "sam2.1_hiera_small.pt", "configs/sam2.1/sam2.1_hiera_s.yaml", (96, 16)),
        ModelType("plus", "sam2.1_hiera_base_plus.pt", "configs/sam2.1/sam2.1_hiera_b+.yaml", (112, 24)),
        ModelType("large", "sam2.1_hiera_large.pt", "configs/sam2.1/sam2.1_hiera_l.yaml", (144, 48)),
        ModelType("demo", "sam2.1_hiera_demo.pt", "sam2.1_hiera_demo.yaml", (48, 11), download=False),
    )
}


def find_model_type(name: str) -> ModelType:
    """The model type of this name. Raises StartupError if it is unknown."""
    if name not in MODEL_TYPES:
        raise StartupError(f"MODEL_TYPE {name!r} is unknown; choose one of {', '.join(MODEL_TYPES)}")
    return MODEL_TYPES[name]


def is_standard(path: Path, kind: ModelType) -> bool:
    """Whether a checkpoint has the file name of its model type, as those in a CHECKPOINT_DIR have."""
    return path.name == kind.file
