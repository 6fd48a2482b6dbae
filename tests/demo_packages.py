"""The packages of the demo model in mode fast for a CPU: what they are made from, and a manifest of them."""

from __future__ import annotations

from pathlib import Path

from helpers import CPU

from sam2_amg.compilation.aot import package_names
from sam2_amg.compilation.manifest import Build, write_manifest
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR
from sam2_amg.modes.build import static_shapes
from sam2_amg.network.checkpoints import image_size_of
from sam2_amg.network.model_types import MODEL_TYPES

KIND = MODEL_TYPES["demo"]
SHAPES = static_shapes(Mode.FAST, image_size_of(KIND), GeneratorConfig(), CPU)
BUILD = Build(DEMO_DIR / KIND.file, KIND.name, Mode.FAST, CPU, SHAPES)
NAMES = package_names(SHAPES)


def write_empty_packages(folder: Path) -> None:
    """A manifest as it should be, with files that are not packages: none of them is ever opened."""
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    write_manifest(folder, BUILD, [folder / name for name in NAMES])
