"""Models to measure: a checkpoint's, or any official size with reproducible random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.checkpoints import MODEL_TYPES, build_model, fill_position_embeddings, find_checkpoint, load_model

_SEED = 0


def seeded_model(model_type: str, device: torch.device) -> SAM2Base:
    """A model with random weights that are the same every time: sam2's own initialisation, positions added."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = build_model(MODEL_TYPES[model_type])
        fill_position_embeddings(model)
    return model.requires_grad_(False).eval().to(device)


def write_seeded(directory: Path, model_type: str) -> None:
    """Writes those weights as a checkpoint, under the name that its type has."""
    model = seeded_model(model_type, torch.device("cpu"))
    torch.save({"model": model.state_dict()}, directory / MODEL_TYPES[model_type].file)


def get_model(weights: str, directory: Path, model_type: str, device: torch.device) -> SAM2Base:
    """`weights` is "checkpoint" (from `directory`) or "seeded"."""
    if weights == "seeded":
        return seeded_model(model_type, device)
    kind = MODEL_TYPES[model_type]
    return load_model(find_checkpoint(directory, kind), kind, device)
