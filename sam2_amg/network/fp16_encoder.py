"""The image encoder in float16: float16 products on tensor cores; accumulation, softmax and LayerNorm in float32.

Linear layers and attention of the blocks take float16. The residual stream is float32, and so is what is added to it:
in float16 it would lose 2 to 3 dB, and overflow above 65504. What costs little and matters much is more exact: the
patch embedding is float32; linear shortcuts and the neck are fp16x3 (`fp16x3_linear.py`), and so is most of the first
two stages, whose errors reach all later blocks. Between the trunk and the high-resolution features, sam2 has two
adjacent linear layers, the neck and `conv_s0` (or `conv_s1`); they are merged into one.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.kernels.attention import attention
from sam2_amg.kernels.fp16_linear import fp16_linear_gelu
from sam2_amg.network.addend import Addend
from sam2_amg.network.encoder import ImageFeatures, LaidOutAttention, require_sam2_encoder, torch_attention
from sam2_amg.network.fp16x3_linear import Fp16x3Linear
from sam2_amg.network.trunk import Trunk, TrunkBlock

# Windows of up to this many tokens run in our attention kernel, one tile each on a Hopper GPU. torch's attention is
# faster for larger windows; but its answers are float16.
_SMALL_WINDOW = 64
_EXACT_STAGES = 2  # of large's 48 blocks they have 8; a block of any stage has as many operations


def fp16_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of float16 queries [B, L, H, D] to keys and values [B, M, H, D]: [B, L, H, D]."""
    return attention(q, k, v) if k.shape[1] <= _SMALL_WINDOW else torch_attention(q, k, v)


class Fp16Linear(nn.Module):
    """A linear layer with float16 operands, whose output is float32; with GELU behind it, float16, rounded once."""

    weight: Tensor  # [K, M] float16
    bias: Tensor  # [M] float32

    def __init__(self, linear: nn.Linear, with_gelu: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.half().T.contiguous())
        self.register_buffer("bias", linear.bias.float())
        self.with_gelu = with_gelu

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] float16 -> [..., M]"""
        if self.with_gelu and x.is_cuda:
            y = fp16_linear_gelu(x.flatten(0, -2).contiguous(), self.weight, self.bias)
        else:
            y = self._addend(x).finish()
            y = F.gelu(y).half() if self.with_gelu else y
        return y.unflatten(0, x.shape[:-1])

    def addend(self, x: Tensor) -> Addend:
        """See `Adding`."""
        assert not self.with_gelu, "what is added to the residual stream has no activation"
        return self._addend(x)

    def _addend(self, x: Tensor) -> Addend:
        """Before GELU. A CPU multiplies in float32, where each product is exact."""
        rows, weight = x.flatten(0, -2), self.weight
        y = torch.mm(rows, weight, out_dtype=torch.float32) if x.is_cuda else rows.float() @ weight.float()
        return Addend(y, self.bias)


class Fp16Mlp(nn.Module):
    """An MLP of two layers, with GELU in the first."""

    def __init__(self, first: Fp16Linear | Fp16x3Linear, second: Fp16Linear) -> None:
        super().__init__()
        self.first, self.second = first, second

    def addend(self, x: Tensor) -> Addend:
        """See `Adding`. `x` is of the dtype that the first layer takes."""
        return self.second.addend(self.first(x))


def convert_block(block: MultiScaleBlock, *, more_exact: bool) -> TrunkBlock:
    """A block of sam2's trunk with float16 products, except in a linear shortcut. Rounds layers of `block`.

    `more_exact` does not round what attention answers, nor what comes into the MLP; the layers behind are fp16x3.
    """
    first, second = block.mlp.layers
    layer: nn.Module
    if more_exact:
        laid_out = LaidOutAttention(block.attn, partial(attention, to_float32=True))
        laid_out.proj, layer = Fp16x3Linear(laid_out.proj), Fp16x3Linear(first, "gelu")
    else:
        laid_out = LaidOutAttention(block.attn, fp16_attention)
        laid_out.proj, layer = Fp16Linear(laid_out.proj), Fp16Linear(first, with_gelu=True)
    laid_out.qkv.half()
    takes = torch.float16, torch.float32 if more_exact else torch.float16
    return TrunkBlock(block, laid_out, Fp16Mlp(layer, Fp16Linear(second)), takes)


class Fp16Encoder(nn.Module):
    """sam2's image encoder and the convolutions `conv_s0` and `conv_s1` that follow it. Modifies `model`."""

    def __init__(self, model: SAM2Base, exact_stages: int = _EXACT_STAGES) -> None:
        """`exact_stages` of the four are more exact. Raises ValueError if the encoder's structure is not SAM 2's."""
        super().__init__()
        encoder, decoder = model.image_encoder, model.sam_mask_decoder
        trunk, neck = encoder.trunk, encoder.neck
        require_sam2_encoder(model)
        fourth, third, second, first = (layer.conv for layer in neck.convs)
        nothing = torch.zeros_like(third.bias)
        no_memory = model.no_mem_embed.flatten() if model.directly_add_no_mem_embed else nothing
        self.to_s0 = _pixel_linear(first, decoder.conv_s0)
        self.to_s1 = _pixel_linear(second, decoder.conv_s1)
        self.to_embedding = _pixel_linear(third, shift=no_memory)
        self.to_embedding_above = _pixel_linear(fourth)
        blocks = [
            convert_block(block, more_exact=sum(i > end for end in trunk.stage_ends) < exact_stages)
            for i, block in enumerate(trunk.blocks)
        ]
        # in the model as well, so that its former weights are freed
        self.trunk = encoder.trunk = Trunk(trunk, blocks, model.image_size)

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encodes normalised pixels, float32 [n, 3, S, S], to float32 features."""
        ends = [end.permute(0, 2, 3, 1) for end in self.trunk(pixels)]  # [n, S/4, S/4, C] to [n, S/32, S/32, 8 C]
        above = self.to_embedding_above(ends[3])  # [n, S/32, S/32, 256]
        above = above[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1).flatten(3, 4).flatten(1, 2)
        embedding = self.to_embedding(ends[2]) + above  # [n, S/16, S/16, 256]
        s0, s1 = self.to_s0(ends[0]), self.to_s1(ends[1])
        return ImageFeatures(embedding.permute(0, 3, 1, 2), (s0.permute(0, 3, 1, 2), s1.permute(0, 3, 1, 2)))


@torch.no_grad()
def _pixel_linear(convolution: nn.Conv2d, then: nn.Conv2d | None = None, shift: Tensor | None = None) -> Fp16x3Linear:
    """Merges one or two 1 x 1 convolutions, and a `shift` of the output, into a linear layer on channels."""
    assert convolution.bias is not None
    weight, bias = convolution.weight.flatten(1).double(), convolution.bias.double()
    if then is not None:
        assert then.bias is not None
        outer = then.weight.flatten(1).double()
        weight, bias = outer @ weight, outer @ bias + then.bias
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias if shift is None else bias + shift)
    return Fp16x3Linear(linear.requires_grad_(False))
