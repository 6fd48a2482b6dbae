"""The image encoder with split products: `SplitLinear` for its linear layers, and attention as exact."""

from __future__ import annotations

from sam2.modeling.backbones.image_encoder import ImageEncoder

from sam2_amg.encoder import LaidOutAttention
from sam2_amg.kernels.attention import attention
from sam2_amg.split_linear import split_linears


def split_encoder(encoder: ImageEncoder) -> None:
    """Changes the linear layers and the attention of sam2's image encoder, in place."""
    split_linears(encoder)
    for block in encoder.trunk.blocks:
        block.attn = LaidOutAttention(block.attn, attention)
