"""The manifest: what packages are made for. `export` writes it; `serve --load_exported` checks it.

Both use the same description, `describe_build`.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
import sysconfig
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import triton

from sam2_amg.compilation.subgraphs import SubgraphShapes
from sam2_amg.config import Mode
from sam2_amg.errors import StartupError
from sam2_amg.network.model_types import find_model_type, is_standard
from sam2_amg.network.weights import hash_checkpoint, hash_file
from sam2_amg.process.program import command_for

NAME = "manifest.json"
_FORMAT = 2
_ROOT = Path(__file__).resolve().parent.parent
# The code that packages depend on: the subgraphs, their compilation, their inputs and the use of their outputs. Routes,
# command lines, formats and start-up are not part of it.
_SOURCES = ("config.py", "postprocess", "kernels", "network", "pipeline", "compilation", "modes")


@dataclass(frozen=True)
class Build:
    """What packages are made from."""

    checkpoint: Path
    model_type: str
    mode: Mode
    device: torch.device
    shapes: SubgraphShapes

    @property
    def command(self) -> str:
        """The command that makes the packages, without its --output."""
        standard = is_standard(self.checkpoint, find_model_type(self.model_type))
        place = shlex.quote(str(self.checkpoint.parent if standard else self.checkpoint))
        batch = f" --batch_size {self.shapes.batch_size}" if self.shapes.batch_size > 1 else ""
        # on a GPU, --points_per_side sets the number of points per call: a side that gives this number
        side = f" --points_per_side {math.isqrt(self.shapes.points)}" if self.device.type == "cuda" else ""
        flags = f"{self.mode.flags} --device {self.device.type}{batch}{side}"
        return f"{command_for('export')} {place} {self.model_type} {flags}"


def architecture(device: torch.device) -> str:
    """A GPU's compute capability, or a processor's architecture with a hash of its instruction sets.

    Code for a CPU is compiled for the exact processor. It crashes on a processor that lacks an instruction.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm_{major}{minor}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "")
    instructions = hashlib.sha256(" ".join(sorted(known.split())).encode()).hexdigest()[:12]
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {instructions}"


def hash_code() -> str:
    """SHA-256 of the source files in `_SOURCES`. Any change of them requires new packages."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        source = _ROOT / name
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def describe_build(build: Build) -> dict[str, Any]:
    """Everything that must be equal when packages are made and when they run; error messages show the keys."""
    return {
        "format": _FORMAT,
        "model type": build.model_type,
        "checkpoint (SHA-256)": hash_checkpoint(build.checkpoint),
        "mode": build.mode.value,
        "device": build.device.type,
        "architecture": architecture(build.device),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "sam2": version("sam2"),
        "code (SHA-256)": hash_code(),
        "CUDA": torch.version.cuda if build.device.type == "cuda" else None,
        # of the modules that Triton has written to launch kernels
        "Python": sysconfig.get_config_var("EXT_SUFFIX") if build.device.type == "cuda" else None,
        "dtype of inputs": "float32",
        "batch size": build.shapes.batch_size,
        "points at a time": build.shapes.points,
        "shapes": json.loads(json.dumps(asdict(build.shapes))),
    }


def write_manifest(folder: Path, build: Build, files: list[Path]) -> None:
    """Writes the manifest of packages into `folder`."""
    hashes = {path.name: hash_file(path) for path in files}
    (folder / NAME).write_text(json.dumps({**describe_build(build), "files (SHA-256)": hashes}, indent=1) + "\n")


def check_packages(folder: Path, build: Build, names: list[str]) -> None:
    """Checks the manifest in `folder`, and the hashes of the files `names`, before any package is loaded.

    Raises StartupError, which names the first difference and the command that makes the right packages.
    """
    again = _command_for(build, folder)

    def refuse(reason: str) -> StartupError:
        return StartupError(f"--load_exported {folder}: {reason}; {again}")

    found = _read(folder, refuse)
    for name, needed in describe_build(build).items():
        if found.get(name) != needed:
            raise refuse(f"made for {name} {_short(found.get(name))}, but this server has {_short(needed)}")
    hashes = found.get("files (SHA-256)")
    if not isinstance(hashes, dict) or sorted(hashes) != sorted(names):
        raise refuse(f"{NAME} does not list {', '.join(names)}")
    for name in names:
        try:
            found_hash = hash_file(folder / name)
        except FileNotFoundError as error:
            raise refuse(f"{name} is missing") from error
        except OSError as error:
            raise refuse(f"{name} cannot be read ({error.strerror})") from error
        if found_hash != hashes[name]:
            raise refuse(f"{name} is damaged or was changed: its SHA-256 is not the one in {NAME}")


def _command_for(build: Build, folder: Path) -> str:
    """The command that makes the right packages. It replaces a folder of packages, and spares any other folder."""
    make = f"make packages that fit: {build.command} --output"
    if folder.exists() and not (folder / NAME).exists():
        return f"{make} DIR, with another folder for DIR"
    return f"{make} {shlex.quote(str(folder))}" + " (after removing that folder)" * folder.exists()


def _read(folder: Path, refuse: Any) -> dict[str, Any]:
    path = folder / NAME
    if not path.is_file():
        raise refuse(f"{NAME} is missing")
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise refuse(f"{NAME} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise refuse(f"{NAME} is not a manifest")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 64 else text[:61] + "..."
