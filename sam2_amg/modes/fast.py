"""Mode fast: ao's network compiled; on a GPU, matrix products of float32 accuracy on tensor cores."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.compilation.subgraphs import Subgraphs, plain_subgraphs
from sam2_amg.kernels.attention import attention
from sam2_amg.modes.compiled import CompiledRecipe
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import Fp16x3ImageTokens
from sam2_amg.network.fp16x3_linear import use_fp16x3_encoder, use_fp16x3_linears
from sam2_amg.network.fused_upscaling import FusedUpscaling


def fast_subgraphs(model: SAM2Base, device: torch.device, batch_size: int = 1) -> Subgraphs:
    """The uncompiled subgraphs.

    On a GPU, the encoder's linear layers and attention use fp16x3, and so do the decoder's image tokens, upscaling, and
    attention of prompt tokens to each other and to the shared image; this modifies `model`.
    """
    if device.type == "cpu":
        return plain_subgraphs(model, FoldedDecoder(model), upscale=True, batch_size=batch_size)
    use_fp16x3_encoder(model.image_encoder)
    return plain_subgraphs(model, fp16x3_decoder(model), upscale=False, batch_size=batch_size)


def fp16x3_decoder(model: SAM2Base) -> FoldedDecoder:
    """The decoder on a GPU. Modifies `model`."""
    upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3=True)
    decoder = FoldedDecoder(model, upscaling, Fp16x3ImageTokens, attention)  # takes weights of the linear layers
    use_fp16x3_linears(model.sam_mask_decoder.transformer)
    return decoder


RECIPE = CompiledRecipe(
    plain_subgraphs=fast_subgraphs,
    gpu_points=256,  # their image tokens take 1.1 GB
    fp16x3=True,
    least_decibels=50.0,
)
