"""Mode fast: ao's network compiled; on a GPU, matrix products of float32 accuracy on tensor cores."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.compilation.subgraphs import Subgraphs, plain_subgraphs
from sam2_amg.modes.compiled import CompiledRecipe
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_encoder import use_fp16x3_encoder
from sam2_amg.network.fused_decoder import fused_decoder


def fast_subgraphs(model: SAM2Base, device: torch.device, batch_size: int = 1) -> Subgraphs:
    """The uncompiled subgraphs.

    On a GPU, linear layers and attention of the encoder and of the decoder use fp16x3, and so do image tokens and
    upscaling; this modifies `model`.
    """
    if device.type == "cpu":
        return plain_subgraphs(model, FoldedDecoder(model), upscale=True, batch_size=batch_size)
    use_fp16x3_encoder(model)
    return plain_subgraphs(model, fused_decoder(model, fp16x3=True), upscale=False, batch_size=batch_size)


RECIPE = CompiledRecipe(
    plain_subgraphs=fast_subgraphs,
    gpu_points=256,  # their image tokens take 1.1 GB
    fp16x3=True,
    least_decibels=50.0,
)
