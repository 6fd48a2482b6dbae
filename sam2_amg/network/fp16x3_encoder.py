"""The image encoder with fp16x3 products, which have float32 accuracy (`fp16x3_linear.py`)."""

from __future__ import annotations

import torch
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.kernels.attention import attention
from sam2_amg.network.encoder import LaidOutAttention
from sam2_amg.network.fp16x3_linear import Fp16x3Linear, Fp16x3Mlp
from sam2_amg.network.trunk import Trunk, TrunkBlock


def use_fp16x3_encoder(model: SAM2Base) -> None:
    """Replaces the trunk of the model's image encoder by one of fp16x3 products.

    Raises ValueError if its structure is not SAM 2's.
    """
    encoder = model.image_encoder
    encoder.trunk = Trunk(encoder.trunk, [convert_block(block) for block in encoder.trunk.blocks], model.image_size)


def convert_block(block: MultiScaleBlock) -> TrunkBlock:
    """A block of sam2's trunk with linear layers, MLP and attention by fp16x3."""
    laid_out = LaidOutAttention(block.attn, attention)
    laid_out.qkv, laid_out.proj = Fp16x3Linear(laid_out.qkv), Fp16x3Linear(laid_out.proj)
    return TrunkBlock(block, laid_out, Fp16x3Mlp(block.mlp), takes=(torch.float32, torch.float32))
