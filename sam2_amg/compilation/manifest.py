"""What a package was made for, and whether that is what this server needs.

One description, `describe_build`, is written by `export` and compared by `serve --load_exported`.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shlex
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import triton

from sam2_amg.compilation.subgraphs import SubgraphShapes
from sam2_amg.config import Mode
from sam2_amg.errors import StartupError
from sam2_amg.network.weights import hash_checkpoint, hash_file
from sam2_amg.program import command_for

NAME = "manifest.json"
_FORMAT = 2
_ROOT = Path(__file__).resolve().parent.parent
# What packages depend on: what subgraphs are, how they are compiled, and what goes in and comes out. Routes, command
# lines, formats and start-up are not among it.
_SOURCES = ("config.py", "postprocess", "kernels", "network", "pipeline", "compilation", "modes")


@dataclass(frozen=True)
class Build:
    """What packages are made from. Two that are equal run the same code on the same weights."""

    checkpoint: Path
    model_type: str
    mode: Mode
    device: torch.device
    shapes: SubgraphShapes

    @property
    def command(self) -> str:
        """The command that makes the packages, but for its --output."""
        directory = shlex.quote(str(self.checkpoint.parent))
        batch = f" --batch_size {self.shapes.batch_size}" if self.shapes.batch_size > 1 else ""
        # on a GPU, subgraphs take the points of a grid: a side that gives as many
        side = f" --points_per_side {math.isqrt(self.shapes.points)}" if self.device.type == "cuda" else ""
        flags = f"{self.mode.flags} --device {self.device.type}{batch}{side}"
        return f"{command_for('export')} {directory} {self.model_type} {flags}"


def architecture(device: torch.device) -> str:
    """What compiled code runs on: a GPU's compute capability, or a processor's instructions (a hash tells sets apart).

    Code for a CPU is compiled for the very processor, and would end the process on one that lacks an instruction.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"sm_{major}{minor}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    known = next((line.split(":", 1)[1] for line in lines if line.startswith(("flags", "Features"))), "")
    instructions = hashlib.sha256(" ".join(sorted(known.split())).encode()).hexdigest()[:12]
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {instructions}"


def hash_code() -> str:
    """SHA-256 of the source that packages depend on, `_SOURCES`: any change of it calls for new packages."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        source = _ROOT / name
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            digest.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def describe_build(build: Build) -> dict[str, Any]:
    """Everything that must be the same where packages are made and where they run, by the names people see."""
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
        "dtype of inputs": "float32",
        "batch size": build.shapes.batch_size,
        "points at a time": build.shapes.points,
        "shapes": json.loads(json.dumps(asdict(build.shapes))),
    }


def write_manifest(folder: Path, build: Build, files: list[Path]) -> None:
    """Writes the manifest of packages that lie in `folder`."""
    hashes = {path.name: hash_file(path) for path in files}
    (folder / NAME).write_text(json.dumps({**describe_build(build), "files (SHA-256)": hashes}, indent=1) + "\n")


def check_packages(folder: Path, build: Build, names: list[str]) -> None:
    """Compares the packages of `folder`, files called `names`, with what is needed, before any of them is opened.

    Raises StartupError that names the first thing that is another, and the command that makes the right packages.
    """
    again = _command_for(build, folder)

    def refuse(reason: str) -> StartupError:
        return StartupError(f"--load_exported {folder}: {reason}; {again}")

    found = _read(folder, refuse)
    for name, needed in describe_build(build).items():
        if found.get(name) != needed:
            raise refuse(f"made for {name} {_short(found.get(name))}, and this server has {_short(needed)}")
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
            raise refuse(f"{name} is damaged or was changed: its SHA-256 is not that of {NAME}")


def _command_for(build: Build, folder: Path) -> str:
    """How to make the right packages: in the place of wrong ones, or beside a folder that holds something else."""
    make = f"make packages that fit: {build.command} --output"
    if folder.exists() and not (folder / NAME).exists():
        return f"{make} DIR, with another folder for DIR"
    return f"{make} {shlex.quote(str(folder))}" + " (after removing that folder)" * folder.exists()


def _read(folder: Path, refuse: Any) -> dict[str, Any]:
    path = folder / NAME
    if not path.is_file():
        raise refuse(f"there is no {NAME}")
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise refuse(f"{NAME} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise refuse(f"{NAME} is no manifest")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= 64 else text[:61] + "..."
