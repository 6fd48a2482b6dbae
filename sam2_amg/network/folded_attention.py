"""One cross attention of the mask decoder, its projections of image tokens folded into the prompt tokens.

This is weight absorption, as DeepSeek-V2 (2024, section 2.1.2) uses it in multi-head latent attention.

Symbols in the shape comments: P points, T tokens a point (8, or 7 without an object-score token), H heads,
D channels a head, C channels of the transformer (256), N image tokens (h * w).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention
from torch import Tensor


@dataclass(frozen=True)
class FoldedTokens:
    """Prompt tokens as image tokens meet them, one vector a head: `keys @ folded.mT` are scores without positions.

    `heads`, [P, H, T, D], are the same vectors before they were folded, for the scores of positions; scaled, both.
    """

    heads: Tensor  # [P, H, T, D]
    folded: Tensor  # [P, H*T, C]


class FoldedAttention:
    """The weights of one cross attention between T tokens and N image tokens, split by head.

    With keys K, positions E, tokens q and the rows of the weights split by head h (head width d):

        token to image:  s = (K + E) (Wk_h^T (Wq q + bq)_h) / sqrt(d), softmax over the N image tokens;
                         out = Wo concat_h(Wv_h (a^T K) + bv_h) + bo
        image to token:  s = (K + E) (Wq_h^T k) / sqrt(d) + bq_h . k / sqrt(d), softmax over the T tokens;
                         out = sum_ht a_ht (Wo_h v_ht + bo / H)

    A key bias is the same for every image token and cancels in the first softmax. In the second the weights of a
    head sum to one, so a share of the output bias added to every folded value adds up to the bias.
    """

    def __init__(self, attention: Attention) -> None:
        """Splits the weights of sam2's `attention` by head."""
        heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
        self.attention = attention
        self.heads = heads
        self.scale = width**-0.5
        self.wq = attention.q_proj.weight.unflatten(0, (heads, width))  # [H, D, C]
        self.wk = attention.k_proj.weight.unflatten(0, (heads, width))  # [H, D, C]
        self.wv = attention.v_proj.weight.unflatten(0, (heads, width)).mT  # [H, C, D]
        self.bv = attention.v_proj.bias.unflatten(0, (heads, 1, width))  # [H, 1, D]
        self.wo = attention.out_proj.weight.unflatten(1, (heads, width)).permute(1, 2, 0)  # [H, D, C]

    def position_keys(self, pe: Tensor) -> Tensor:
        """Positions E [N, C] as tokens that ask the image meet them, [H, D, N]."""
        with torch.autocast(pe.device.type, enabled=False):
            return (self.wk.to(pe.dtype) @ pe.mT).contiguous()

    def position_queries(self, pe: Tensor) -> Tensor:
        """Positions E [N, C] as tokens that the image asks meet them, bias included, [H, D, N]."""
        bias = self.attention.q_proj.bias.unflatten(0, (self.heads, -1, 1))
        with torch.autocast(pe.device.type, enabled=False):
            return (self.wq.to(pe.dtype) @ pe.mT + bias).contiguous()

    def split_heads(self, x: Tensor) -> Tensor:
        """[P, T, H*D] -> [P, H, T, D]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def fold_queries(self, tokens: Tensor) -> FoldedTokens:
        """Tokens [P, T, C] that will ask the image."""
        q = self.split_heads(self.attention.q_proj(tokens)) * self.scale
        return FoldedTokens(q, by_head(q, self.wk).flatten(1, 2))

    def fold_keys(self, tokens: Tensor) -> FoldedTokens:
        """Tokens [P, T, C] that the image will ask."""
        k = self.split_heads(self.attention.k_proj(tokens)) * self.scale
        return FoldedTokens(k, by_head(k, self.wq).flatten(1, 2))

    def fold_values(self, tokens: Tensor) -> Tensor:
        """What an attention weight of 1 adds to an image token: [P, T, C] -> [P, H*T, C]."""
        v = self.split_heads(self.attention.v_proj(tokens))  # [P, H, T, D]
        return (by_head(v, self.wo) + self.attention.out_proj.bias / self.heads).flatten(1, 2)

    def read_out(self, context: Tensor) -> Tensor:
        """What the tokens make of what they read, attention-weighted sums of keys [P, H*T, C] -> [P, T, C]."""
        values = by_head(context.unflatten(1, (self.heads, -1)), self.wv) + self.bv  # [P, H, T, D]
        return self.attention.out_proj(values.transpose(1, 2).flatten(2))


def by_head(x: Tensor, weights: Tensor) -> Tensor:
    """`x @ weights` of [P, H, T, A] and [H, A, B]: [P, H, T, B].

    One product a head: by broadcasting, each point would get a copy of the weights.
    """
    rows = x.transpose(0, 1)  # [H, P, T, A]
    return (rows.flatten(1, 2) @ weights).unflatten(1, rows.shape[1:3]).transpose(0, 1)


def position_scores(tokens: FoldedTokens, positions: Tensor) -> Tensor:
    """The share of positions [H, D, N] in the scores: [P, H*T, N]."""
    return (tokens.heads @ positions).flatten(1, 2)


def read(tokens: FoldedTokens, keys: Tensor, positions: Tensor) -> Tensor:
    """Attention of tokens to image tokens `keys` [P, N, C]: weighted sums of keys, [P, H*T, C]."""
    scores = torch.baddbmm(position_scores(tokens, positions), tokens.folded, keys.mT)  # [P, H*T, N]
    return scores.softmax(-1) @ keys


def ask_tokens(scores: Tensor, heads: int) -> Tensor:
    """Attention weights of image tokens to tokens, a softmax over T in each head: [P, H*T, N] -> [P, H*T, N]."""
    return scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
