"""The image encoder with fp16x3 products, which have float32 accuracy (`fp16x3_linear.py`)."""

from __future__ import annotations

import torch
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.kernels.attention import attention
from sam2_amg.network.encoder import LaidOutAttention
from sam2_amg.network.fp16x3_linear import Fp16x3Mlp, use_fp16x3_linears
from sam2_amg.network.trunk import Trunk, TrunkBlock


def use_fp16x3_encoder(model: SAM2Base) -> None:
    """Replaces linear layers, MLPs and attention of sam2's image encoder by fp16x3 versions, in place."""
    encoder = model.image_encoder
    encoder.trunk = Trunk(encoder.trunk, [_converted(block) for block in encoder.trunk.blocks], model.image_size)


def _converted(block: MultiScaleBlock) -> TrunkBlock:
    attention_of_block, mlp = LaidOutAttention(block.attn, attention), Fp16x3Mlp(block.mlp)
    use_fp16x3_linears(attention_of_block)
    use_fp16x3_linears(block)  # the shortcut
    return TrunkBlock(block, attention_of_block, mlp, takes=(torch.float32, torch.float32))
