"""The stages after the decoder, in every mode except baseline."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from sam2_amg.config import GeneratorConfig
from sam2_amg.kernels import mask_stats as kernel_stats
from sam2_amg.kernels import rle as kernel_rle
from sam2_amg.postprocess import mask_stats as plain_stats
from sam2_amg.postprocess import rle as plain_rle
from sam2_amg.postprocess.nms import suppress


def mask_stages(config: GeneratorConfig, device: torch.device) -> dict[str, Any]:
    """The stages after the decoder, as arguments of `Stages`. `config` must have its defaults filled in.

    A GPU runs Triton kernels that store no upsampled masks; a CPU runs plain torch in bounded memory.
    """
    if device.type == "cuda":
        return {
            "mask_stats": kernel_stats.mask_stats,
            "suppress": suppress,
            "run_boundaries": kernel_rle.run_boundaries,
        }
    assert config.mask_memory_mib is not None
    memory = config.mask_memory_mib << 20
    return {
        "mask_stats": partial(plain_stats.mask_stats, memory=memory),
        "suppress": suppress,
        "run_boundaries": partial(plain_rle.run_boundaries, memory=memory),
    }
