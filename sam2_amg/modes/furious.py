"""Mode furious: fast with float16 operands in most matrix products. Needs a CUDA GPU."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.compilation.subgraphs import Subgraphs, plain_subgraphs
from sam2_amg.modes.compiled import CompiledRecipe
from sam2_amg.network.fp16_encoder import Fp16Encoder
from sam2_amg.network.fused_decoder import fused_decoder


def furious_subgraphs(model: SAM2Base, _device: torch.device, batch_size: int = 1) -> Subgraphs:
    """The uncompiled subgraphs. Modifies `model`."""
    decoder = fused_decoder(model, fp16x3=False)
    encoder = Fp16Encoder(model)
    return plain_subgraphs(model, decoder, upscale=False, encoder=encoder, batch_size=batch_size)


RECIPE = CompiledRecipe(
    plain_subgraphs=furious_subgraphs,
    gpu_points=1024,  # their image tokens take 2.1 GB
    fp16x3=False,
    least_decibels=35.0,
)
