"""Which kernels (on a CPU, which operators) one generate() spends its time in, by torch's profiler."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sam2_amg.pipeline.base import Generator

ROWS = 24  # kernels that are listed one by one
_NAME = 72  # characters of a kernel's name that are kept; C++ templates run to thousands


def profile_generate(generator: Generator, image: NDArray[np.uint8], name: str, cuda: bool) -> dict[str, Any]:
    """Profiles generate() on uint8 RGB [H, W, 3]: milliseconds and calls of each kernel, the slowest first."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    generator.generate(image)
    with profile(activities=activities) as recorded:
        generator.generate(image)
        if cuda:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if cuda else DeviceType.CPU
    rows = [
        {
            "name": event.key.replace("|", "/")[:_NAME],
            "calls": event.count,
            "ms": (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e3,
        }
        for event in recorded.key_averages()
        if event.device_type == kind
    ]
    rows.sort(key=lambda row: -row["ms"])
    rest = rows[ROWS:]
    if rest:
        others = {"name": f"{len(rest)} others", "calls": sum(row["calls"] for row in rest)}
        rows[ROWS:] = [{**others, "ms": sum(row["ms"] for row in rest)}]
    rows = [{**row, "ms": round(row["ms"], 3)} for row in rows if row["ms"] > 0]
    return {"image": name, "total_ms": round(sum(row["ms"] for row in rows), 2), "rows": rows}
