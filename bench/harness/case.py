"""What a system is built from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base

from bench.harness.planted import Planted
from bench.harness.timing import StageClock
from sam2_amg.config import GeneratorConfig


@dataclass(frozen=True)
class Case:
    """Weights and conditions, the same for every system.

    `clock` learns where the time goes; `planted` is None where the model itself answers.
    """

    model: SAM2Base
    model_type: str
    config: GeneratorConfig
    device: torch.device
    clock: StageClock
    planted: Planted | None
    batch_size: int = 1  # images that a mode may encode together
