"""The image encoder with split products: `SplitLinear` for its linear layers, `split_attention` for its attention."""

from __future__ import annotations

from sam2.modeling.backbones.hieradet import MultiScaleAttention, do_pool
from sam2.modeling.backbones.image_encoder import ImageEncoder
from torch import Tensor, nn

from sam2_amg.kernels.attention import split_attention
from sam2_amg.split_linear import split_linears


class SplitAttention(nn.Module):
    """sam2's `MultiScaleAttention`, as exact, at tensor-core speed."""

    def __init__(self, attention: MultiScaleAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.qkv, self.proj, self.q_pool = attention.qkv, attention.proj, attention.q_pool

    def forward(self, x: Tensor) -> Tensor:
        """Attention within each image or window, [B, h, w, C] -> [B, h', w', C']; h' is h but where queries pool."""
        size = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, h*w, H, D]
        if self.q_pool:
            pooled = do_pool(q.flatten(2).unflatten(1, size), self.q_pool)  # [B, h', w', C']
            size = pooled.shape[1:3]
            q = pooled.contiguous().flatten(1, 2).unflatten(-1, (self.heads, -1))
        return self.proj(split_attention(q, k, v).flatten(2).unflatten(1, size))


def split_encoder(encoder: ImageEncoder) -> None:
    """Changes the linear layers and the attention of sam2's image encoder, in place."""
    split_linears(encoder)
    for block in encoder.trunk.blocks:
        block.attn = SplitAttention(block.attn)
