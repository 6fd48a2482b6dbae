"""The image side of the folded decoder by kernels with products on tensor cores, of `kernels/image_attention.py`."""

from __future__ import annotations

from torch import Tensor, nn

from sam2_amg.folded_attention import FoldedTokens
from sam2_amg.image_side import PlainImageSide, SharedImage, TokenUpdate
from sam2_amg.kernels.image_attention import read_keys, update_keys


class SplitImageSide(PlainImageSide):
    """Keeps the image tokens of every point, float32 [P, N, C], as its parent does, and is as exact."""

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageSide`; the state is the image tokens [P, N, C]."""
        keys = _update(image.keys, update, image.first_queries, self.first_norm, ask=False)
        return keys, _read(keys, queries, self.second_keys)

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageSide`; the state is the image tokens [P, N, C]."""
        keys = _update(state, update, self.second_queries, self.second_norm, ask=True)
        return keys, _read(keys, queries, self.final_keys)


def _scores(tokens: FoldedTokens, positions: Tensor) -> Tensor:
    """The share of positions [H, D, N] in the scores, a product a head: [H, P*T, N]."""
    return tokens.heads.transpose(0, 1).flatten(1, 2) @ positions


def _update(keys: Tensor, update: TokenUpdate, positions: Tensor, norm: nn.LayerNorm, ask: bool) -> Tensor:
    scores = _scores(update.keys, positions)
    folded, values = update.keys.folded.contiguous(), update.values.contiguous()
    return update_keys(keys, scores, folded, values, norm.weight, norm.bias, norm.eps, ask, split=True)


def _read(keys: Tensor, queries: FoldedTokens, positions: Tensor) -> Tensor:
    return read_keys(keys, _scores(queries, positions), queries.folded.contiguous(), split=True)
