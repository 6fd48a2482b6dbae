"""The folded decoder with image tokens in float16. Prompt tokens have float32 products, in linear layers fp16x3.

A point has eight prompt tokens and 4,096 image tokens. Rounding errors of a prompt token reach all image tokens alike;
those of image tokens are independent, and mostly cancel in sums over them.
"""

from __future__ import annotations

from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.kernels.attention import attention
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import Fp16ImageTokens
from sam2_amg.network.fp16x3_linear import use_fp16x3_linears
from sam2_amg.network.fused_upscaling import FusedUpscaling


def fp16_decoder(model: SAM2Base) -> FoldedDecoder:
    """Modifies the weights of `model`'s mask decoder. Outputs are float32, except the image tokens."""
    upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3=False)
    decoder = FoldedDecoder(model, upscaling, Fp16ImageTokens, attention)
    use_fp16x3_linears(model.sam_mask_decoder.transformer)
    return decoder
