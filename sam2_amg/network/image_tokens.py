"""Image tokens of the folded decoder in float32: their updates by each point's tokens.

The reference for `fp16x3_image_tokens.py`. Symbols as in `folded_attention.py`; U points with a kept mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.folded_attention import FoldedAttention, FoldedTokens, ask_tokens, position_scores, read
from sam2_amg.network.layer_norm import normalise
from sam2_amg.network.upscaling import LinearUpscaling


@dataclass(frozen=True)
class SharedImage:
    """The folded decoder's data of one image. None of it depends on a point."""

    keys: Tensor  # [N, C] image tokens before layer 1
    first_keys: Tensor  # [H, N, D] layer 1, token to image: projected keys
    first_values: Tensor  # [H, N, D] layer 1, token to image: projected values
    first_queries: Tensor  # [H, D, N] layer 1, image to token: projected queries
    children: Tensor  # high-resolution features, from `LinearUpscaling.arrange`
    grandchildren: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All fields, in order."""
        shared = self.keys, self.first_keys, self.first_values, self.first_queries
        return *shared, self.children, self.grandchildren


@dataclass(frozen=True)
class TokenUpdate:
    """The update of image tokens in a layer: attention to the tokens' `keys` and `values` [P, H*T, C]."""

    keys: FoldedTokens  # layer 1 uses only `heads`, because its image tokens are projected once per image
    values: Tensor


class ImageTokens(Protocol):
    """Two updates of the image tokens, attention of the tokens to them after each, and the masks."""

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Any, Tensor]:
        """Layer 1's update, then attention of layer 2's tokens: the state for `second`, and [P, H*T, C]."""

    def second(self, image: SharedImage, state: Any, update: TokenUpdate, queries: FoldedTokens) -> tuple[Any, Tensor]:
        """Layer 2's update, then the tokens' final attention: a state of tensors [P, ...], and [P, H*T, C].

        May overwrite the given state.
        """

    def upscale(self, image: SharedImage, state: Any, hyper: Tensor) -> Tensor:
        """Low-res logits [U, 3, 4h, 4w] of U points; `state` has their rows, and `hyper` is [U, C/8, 3]."""


class PlainImageTokens:
    """Keeps the image tokens of every point, [P, N, C]."""

    def __init__(self, model: SAM2Base, pe: Tensor, upscaling: LinearUpscaling) -> None:
        """`pe` are the positions E, [N, C]."""
        transformer = model.sam_mask_decoder.transformer
        first, second = transformer.layers
        self.heads = transformer.final_attn_token_to_image.num_heads
        self.first_norm, self.second_norm = first.norm4, second.norm4
        to_image = FoldedAttention(second.cross_attn_token_to_image)
        to_tokens = FoldedAttention(second.cross_attn_image_to_token)
        final = FoldedAttention(transformer.final_attn_token_to_image)
        self.second_keys = to_image.position_keys(pe)  # [H, D, N]
        self.second_queries = to_tokens.position_queries(pe)  # [H, D, N]
        self.final_keys = final.position_keys(pe)  # [H, D, N]
        self.upscaling = upscaling

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens [P, N, C]."""
        weights = ask_tokens(position_scores(update.keys, image.first_queries), self.heads)  # [P, H*T, N]
        keys = image.keys.expand(len(update.values), -1, -1)  # [P, N, C]
        keys = normalise(self.first_norm, torch.baddbmm(keys, weights.mT, update.values))
        return keys, read(queries, keys, self.second_keys)

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens [P, N, C]."""
        scores = torch.baddbmm(position_scores(update.keys, self.second_queries), update.keys.folded, state.mT)
        keys = torch.baddbmm(state, ask_tokens(scores, self.heads).mT, update.values)
        keys = normalise(self.second_norm, keys)
        return keys, read(queries, keys, self.final_keys)

    def upscale(self, image: SharedImage, state: Tensor, hyper: Tensor) -> Tensor:
        """See `ImageTokens`."""
        return self.upscaling(state, hyper, image.children, image.grandchildren)
