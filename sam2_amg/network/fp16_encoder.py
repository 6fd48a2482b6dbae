"""The image encoder in float16: float16 products on tensor cores; accumulation, softmax and LayerNorm in float32.

Linear layers, convolutions and attention take and return float16. The residual stream is float32: in float16 it would
cost 2 to 3 dB of the image embedding's 61 dB (seeded tiny) or 70 dB (demo), and overflow above 65504. Between the trunk
and the high-resolution features, sam2 has two adjacent linear layers, the neck and `conv_s0` (or `conv_s1`); they are
merged into one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.kernels.attention import attention
from sam2_amg.network.encoder import ImageFeatures, LaidOutAttention, require_sam2_encoder

# Windows of up to this many tokens run in our attention kernel, which has tiles of that size. torch's attention has
# tiles of at least 64 queries, and is faster for larger windows.
_SMALL_WINDOW = 16


def fp16_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of float16 queries [B, L, H, D] to keys and values [B, M, H, D]: [B, L, H, D]."""
    if k.shape[1] <= _SMALL_WINDOW:
        return attention(q, k, v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H, L, D]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Fp16Norm(nn.Module):
    """LayerNorm in float32 with a float16 output."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] float32 -> float16"""
        return self.norm(x).half()


class _Shortcut(nn.Module):
    """The linear shortcut of a block that changes the number of channels. Its output is the residual stream."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear.half()

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] float16 -> [..., C'] float32"""
        return self.linear(x).float()


def convert_block(block: MultiScaleBlock) -> None:
    """Modifies a block of sam2's trunk in place: float32 in and out, float16 products."""
    block.norm1, block.norm2 = Fp16Norm(block.norm1), Fp16Norm(block.norm2)
    block.attn = LaidOutAttention(block.attn.half(), fp16_attention)
    block.mlp.half()
    if block.dim != block.dim_out:
        block.proj = _Shortcut(block.proj)


class Fp16Encoder(nn.Module):
    """sam2's image encoder and the convolutions `conv_s0` and `conv_s1` that follow it. Modifies `model`."""

    positions: Tensor  # [1, S/4, S/4, C] float32

    def __init__(self, model: SAM2Base) -> None:
        """Raises ValueError if the encoder's structure is not SAM 2's."""
        super().__init__()
        encoder, decoder = model.image_encoder, model.sam_mask_decoder
        trunk, neck = encoder.trunk, encoder.neck
        require_sam2_encoder(model)
        side = model.image_size // 4
        self.register_buffer("positions", trunk._get_pos_embed((side, side)).contiguous())
        fourth, third, second, first = (layer.conv for layer in neck.convs)
        nothing = torch.zeros_like(third.bias)
        no_memory = model.no_mem_embed.flatten() if model.directly_add_no_mem_embed else nothing
        self.to_s0 = _pixel_linear(first, decoder.conv_s0)
        self.to_s1 = _pixel_linear(second, decoder.conv_s1)
        self.to_embedding = _pixel_linear(third, shift=no_memory)
        self.to_embedding_above = _pixel_linear(fourth)
        self.patch = trunk.patch_embed.proj.half()
        self.blocks, self.stage_ends = trunk.blocks, trunk.stage_ends
        for block in self.blocks:
            convert_block(block)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encodes normalised pixels, float32 [n, 3, S, S], to float32 features."""
        x = self.patch(pixels.half()).permute(0, 2, 3, 1) + self.positions  # [n, S/4, S/4, C] float32
        ends = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                ends.append(x.half())  # [n, S/4, S/4, C]; each further stage halves the side and doubles the channels
        above = self.to_embedding_above(ends[3]).float()  # [n, S/32, S/32, 256]
        above = above[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1).flatten(3, 4).flatten(1, 2)
        embedding = self.to_embedding(ends[2]).float() + above  # [n, S/16, S/16, 256]
        s0, s1 = self.to_s0(ends[0]).float(), self.to_s1(ends[1]).float()
        return ImageFeatures(embedding.permute(0, 3, 1, 2), (s0.permute(0, 3, 1, 2), s1.permute(0, 3, 1, 2)))


@torch.no_grad()
def _pixel_linear(convolution: nn.Conv2d, then: nn.Conv2d | None = None, shift: Tensor | None = None) -> nn.Linear:
    """Merges one or two 1 x 1 convolutions, and a `shift` of the output, into a float16 linear layer on channels."""
    assert convolution.bias is not None
    weight, bias = convolution.weight.flatten(1).double(), convolution.bias.double()
    if then is not None:
        assert then.bias is not None
        outer = then.weight.flatten(1).double()
        weight, bias = outer @ weight, outer @ bias + then.bias
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=torch.float16)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias if shift is None else bias + shift)
    return linear.requires_grad_(False)
