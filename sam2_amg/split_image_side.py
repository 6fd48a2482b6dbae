"""The image side of the folded decoder by kernels with products on tensor cores, of `kernels/image_attention.py`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sam2_amg.folded_attention import FoldedTokens
from sam2_amg.image_side import PlainImageSide, SharedImage, TokenUpdate
from sam2_amg.kernels.image_attention import read_keys, update_keys


class SplitImageSide(PlainImageSide):
    """Keeps the image tokens of every point, float32 [P, N, C], as its parent does, and is as exact."""

    split = True  # products of split numbers
    dtype = torch.float32  # of everything that a kernel reads

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageSide`; the state is the image tokens [P, N, C]."""
        keys = self._update(image.keys, update, image.first_queries, self.first_norm, ask=False)
        return keys, self._read(keys, queries, self.second_keys)

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageSide`; the state is the image tokens [P, N, C]."""
        keys = self._update(state, update, self.second_queries, self.second_norm, ask=True)
        return keys, self._read(keys, queries, self.final_keys)

    def _scores(self, tokens: FoldedTokens, positions: Tensor) -> Tensor:
        """The share of positions [H, D, N] in the scores, a product a head: [H, P*T, N]."""
        heads = tokens.heads.transpose(0, 1).flatten(1, 2)  # [H, P*T, D]
        return heads.to(self.dtype) @ positions.to(self.dtype)

    def _update(self, keys: Tensor, update: TokenUpdate, positions: Tensor, norm: nn.LayerNorm, ask: bool) -> Tensor:
        scores = self._scores(update.keys, positions)
        folded, values = self._vectors(update.keys.folded), self._vectors(update.values)
        keys = keys.to(self.dtype)
        return update_keys(keys, scores, folded, values, norm.weight, norm.bias, norm.eps, ask, self.split)

    def _read(self, keys: Tensor, queries: FoldedTokens, positions: Tensor) -> Tensor:
        return read_keys(keys, self._scores(queries, positions), self._vectors(queries.folded), self.split)

    def _vectors(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous()


class HalfImageSide(SplitImageSide):
    """Keeps the image tokens of every point in float16, [P, N, C]; so are products, and the scores of positions."""

    split = False
    dtype = torch.float16
