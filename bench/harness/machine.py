"""What a run ran on, and the names of results."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch


def processor() -> str:
    """The processor's name, as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine(device: str) -> dict[str, Any]:
    """What a run ran on."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {processor()}"
    return {
        "device": name,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device == "cuda" else None,
        "device_mib": round(torch.cuda.get_device_properties().total_memory / 2**20) if device == "cuda" else None,
    }


def stem_of(result: dict[str, Any]) -> str:
    """<what>-<model>-<device>-torch<version>"""
    host = result["machine"]
    device = "cpu" if host["device"].startswith("CPU") else host["device"].removeprefix("NVIDIA ").lower()
    return f"{result['what']}-{result['model']}-{device.replace(' ', '-')}-torch{host['torch'].split('+')[0]}"
