"""The demo model for small inputs, which finds masks as it does in large ones, in a tenth of the time."""

from __future__ import annotations

from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.demo import DEMO_DIR
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from training.network import build


def small_demo_model(resolution: int = 128) -> SAM2Base:
    """On the CPU, with the weights that ship."""
    kind = MODEL_TYPES["demo"]
    model = build(resolution)
    model.load_state_dict(load_model(DEMO_DIR / kind.file, kind, next(model.parameters()).device).state_dict())
    return model.requires_grad_(False).eval()
