"""One cross attention of the mask decoder, with the projections of image tokens folded into the prompt tokens.

This is weight absorption, used in the multi-head latent attention of DeepSeek-V2 (2024, section 2.1.2).

Symbols in the shape comments: P points, T tokens per point (8, or 7 without an object-score token), H heads,
D channels per head, C channels of the transformer (256), N image tokens (h * w).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sam2.modeling.sam.transformer import Attention
from torch import Tensor


@dataclass(frozen=True)
class FoldedTokens:
    """Projected prompt tokens, one vector per head, multiplied by 1 / sqrt(D).

    `keys @ folded.mT` are the scores without positions. `heads` are the vectors before folding, for the scores of
    positions.
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

    A key bias is the same for every image token and cancels in the first softmax. In the second, the weights of a head
    sum to one, so adding bo / H to every folded value adds bo in total.
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
        """Positions E [N, C] projected as keys, for token-to-image attention: [H, D, N]."""
        with torch.autocast(pe.device.type, enabled=False):
            return (self.wk.to(pe.dtype) @ pe.mT).contiguous()

    def position_queries(self, pe: Tensor) -> Tensor:
        """Positions E [N, C] projected as queries with bias, for image-to-token attention: [H, D, N]."""
        bias = self.attention.q_proj.bias.unflatten(0, (self.heads, -1, 1))
        with torch.autocast(pe.device.type, enabled=False):
            return (self.wq.to(pe.dtype) @ pe.mT + bias).contiguous()

    def split_heads(self, x: Tensor) -> Tensor:
        """[P, T, H*D] -> [P, H, T, D]"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def fold(self, x: Tensor, weights: Tensor) -> Tensor:
        """`x @ weights` of [P, H, T, A] and [H, A, B]: [P, H, T, B].

        One product per head, because broadcasting copies the weights for each point.
        """
        rows = x.transpose(0, 1)  # [H, P, T, A]
        return (rows.flatten(1, 2) @ weights).unflatten(1, rows.shape[1:3]).transpose(0, 1)

    def fold_queries(self, tokens: Tensor) -> FoldedTokens:
        """Folds tokens [P, T, C] as queries, for token-to-image attention."""
        q = self.split_heads(self.attention.q_proj(tokens)) * self.scale
        return FoldedTokens(q, self.fold(q, self.wk).flatten(1, 2))

    def fold_keys(self, tokens: Tensor) -> FoldedTokens:
        """Folds tokens [P, T, C] as keys, for image-to-token attention."""
        k = self.split_heads(self.attention.k_proj(tokens)) * self.scale
        return FoldedTokens(k, self.fold(k, self.wq).flatten(1, 2))

    def fold_values(self, tokens: Tensor) -> Tensor:
        """Folds tokens as values: what an attention weight of 1 adds to an image token. [P, T, C] -> [P, H*T, C]."""
        v = self.split_heads(self.attention.v_proj(tokens))  # [P, H, T, D]
        return (self.fold(v, self.wo) + self.attention.out_proj.bias / self.heads).flatten(1, 2)

    def read_out(self, context: Tensor) -> Tensor:
        """The attention's output from weighted sums of keys: value and output projection. [P, H*T, C] -> [P, T, C]."""
        values = self.fold(context.unflatten(1, (self.heads, -1)), self.wv) + self.bv  # [P, H, T, D]
        return self.attention.out_proj(values.transpose(1, 2).flatten(2))


def position_scores(tokens: FoldedTokens, positions: Tensor) -> Tensor:
    """The part of the scores that comes from positions [H, D, N]: [P, H*T, N]."""
    return (tokens.heads @ positions).flatten(1, 2)


def read(tokens: FoldedTokens, keys: Tensor, positions: Tensor) -> Tensor:
    """Attention of tokens to image tokens `keys` [P, N, C]; returns weighted sums of keys, [P, H*T, C]."""
    scores = torch.baddbmm(position_scores(tokens, positions), tokens.folded, keys.mT)  # [P, H*T, N]
    return scores.softmax(-1) @ keys


def ask_tokens(scores: Tensor, heads: int) -> Tensor:
    """Attention weights of image tokens to tokens, a softmax over T in each head: [P, H*T, N] -> [P, H*T, N]."""
    return scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
