"""Launch configurations in files: JSON that `sam2-amg tune` writes for a GPU, and that servers look for.

{"gpu": "NVIDIA A100-SXM4-80GB", "launch_configs": {"update_first": {"BLOCK": 64, ...}, ...}}
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import triton

from sam2_amg.errors import StartupError
from sam2_amg.kernels.launch_configs import (
    SAFE,
    LaunchConfig,
    LaunchConfigs,
    shipped_configs,
    use_launch_configs,
)
from sam2_amg.process.program import command_for

logger = logging.getLogger(__name__)
PACKED = "launch-configs.json"  # the table in a folder of packages
VARIABLE = "SAM2_AMG_LAUNCH_TABLES"
_MOST_PIXELS = 512  # `image_attention.py` takes numbers of image tokens that are multiples of it
_LARGEST = {"num_warps": 32, "num_stages": 8, "PARTS": 64, "POINTS": 64}  # of a tile's side: 256
_in_use: Path | None = None  # of this process


def tables_folders(cache: Path | None = None) -> list[Path]:
    """Where tables lie, the first one first: the compile cache, by default the one that the environment tells of, and
    the user's cache."""
    named = cache or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # "~/.cache" for a user without a home
    return [*([named] if named else []), Path(caches) / "sam2-amg"]


def find_table(gpu: str, cache: Path | None = None) -> Path | None:
    """The table of a kind of GPU; None where there is none. `cache` is that of `tables_folders`."""
    paths = [folder / table_name(gpu) for folder in tables_folders(cache)]
    return next(filter(os.path.exists, paths), None)


def table_name(gpu: str) -> str:
    """The file name of the table of a kind of GPU, which torch.cuda.get_device_name tells."""
    return f"launch-configs-{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"


def write_table(path: Path, gpu: str, configs: LaunchConfigs) -> None:
    """Writes a table; whoever reads meanwhile sees the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    table = {"gpu": gpu, "triton": triton.__version__, "launch_configs": asdict(configs)}
    part.write_text(json.dumps(table, indent=1) + "\n")
    part.replace(path)


def read_table(path: Path) -> LaunchConfigs:
    """The configurations of a table. Raises StartupError for what is none of this version."""
    try:
        table = json.loads(path.read_text())
        found = table["launch_configs"]
        names = {field.name for field in fields(LaunchConfigs)}
        if not isinstance(found, dict) or found.keys() != names:
            raise ValueError("it has not the kernels of this version")
        configs = LaunchConfigs(**{name: _checked(name, found[name]) for name in names})
        if table.get("triton") != triton.__version__:  # another one's kernels may take more memory than there is
            raise ValueError(f"it was measured with Triton {table.get('triton')}, this is {triton.__version__}")
        return configs
    except OSError as error:
        raise StartupError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StartupError(f"{path} is no table of launch configurations of this version ({error})") from error


def use_table(device: torch.device, report: Callable[[str], None]) -> None:
    """Has this process use the table of its GPU, if there is one. `report` is told so, or that one would help."""
    global _in_use
    gpu = torch.cuda.get_device_name(device)
    if path := find_table(gpu):
        try:
            use_launch_configs(read_table(path))
            _in_use = path
            report(f"using the launch configurations in {path}")
        except StartupError as error:
            logger.warning("%s; kernels have those of this package. To measure again: %s", error, command_for("tune"))
    elif shipped_configs(device) is None:
        logger.warning("no launch configurations are known for %s; for faster kernels: %s", gpu, command_for("tune"))


def way_out_of_large_kernels() -> str:
    """What to do about a kernel that takes more registers or shared memory than the GPU has."""
    if _in_use is None:
        return "give another mode, or another GPU"
    return f"delete {_in_use}, or measure again: {command_for('tune')}"


def _checked(kernel: str, config: Any) -> LaunchConfig:
    """A configuration with the keys that the kernel takes, and values that it computes the same with."""
    known: Mapping[str, int] = getattr(SAFE, kernel)
    if not isinstance(config, dict) or config.keys() != known.keys():
        raise ValueError(f"{kernel} takes {', '.join(known)}")
    for name, value in config.items():
        largest = _LARGEST.get(name, 256)
        is_power = type(value) is int and value > 0 and value & (value - 1) == 0
        if type(value) is not int or not 1 <= value <= largest or not (is_power or name == "num_stages"):
            raise ValueError(f"{name} of {kernel} must be a power of two up to {largest}, not {value!r}")
        if name == "BLOCK" and value < 16:
            raise ValueError(f"BLOCK of {kernel} must be 16 or more, not {value}")
    parts = config.get("PARTS", 1)
    if config["BLOCK"] * parts > _MOST_PIXELS:  # kernels take image tokens in whole tiles of a part
        raise ValueError(f"BLOCK times PARTS of {kernel} must be at most {_MOST_PIXELS}")
    if kernel == "read" and parts < known["PARTS"]:
        raise ValueError(f"PARTS of read must be {known['PARTS']} or more: sums over fewer are less exact")
    return dict(config)
