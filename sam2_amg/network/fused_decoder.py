"""The folded decoder with our kernels, on a GPU. Its image tokens have products by fp16x3 or by float16.

Prompt tokens have float32 products, in linear layers fp16x3: a point has eight prompt tokens and 4,096 image tokens.
Rounding errors of a prompt token reach all image tokens alike; those of image tokens are independent, and mostly cancel
in sums over them.
"""

from __future__ import annotations

from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.kernels.attention import attention
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import Fp16ImageTokens, Fp16x3ImageTokens
from sam2_amg.network.fp16x3_linear import use_fp16x3_linears
from sam2_amg.network.fused_upscaling import FusedUpscaling


def fused_decoder(model: SAM2Base, fp16x3: bool) -> FoldedDecoder:
    """Modifies the weights of `model`'s mask decoder. Outputs are float32, except the image tokens."""
    upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3)
    image_tokens = Fp16x3ImageTokens if fp16x3 else Fp16ImageTokens
    decoder = FoldedDecoder(model, upscaling, image_tokens, attention)  # takes weights that are replaced below
    use_fp16x3_linears(model.sam_mask_decoder)
    return decoder
