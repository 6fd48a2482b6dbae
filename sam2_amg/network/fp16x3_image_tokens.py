"""Image tokens of the folded decoder with the kernels of `kernels/image_attention.py`, in fp16x3 or float16.

The kernels store image tokens without part of LayerNorm's affine map, gain g and bias b. It is folded into the vectors:

    layer 1, keys = stored + b:    keys . w = stored . w + b . w
                                   keys + sum_ht a_ht v_ht = stored + sum_ht a_ht (v_ht + b / H)
                                   sum_n a_n keys = sum_n a_n stored + b
    layer 2, keys = g stored + b:  keys . u = stored . (g u) + b . u
                                   sum_n a_n keys = g (sum_n a_n stored) + b

because the weights of a head sum to one, and a constant added to all scores of a softmax cancels.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.network.folded_attention import FoldedTokens
from sam2_amg.network.image_tokens import PlainImageTokens, SharedImage, TokenUpdate
from sam2_amg.network.upscaling import LinearUpscaling


class Fp16x3ImageTokens(PlainImageTokens):
    """Keeps the image tokens of every point, float32 [P, N, C], with the accuracy of `PlainImageTokens`.

    Upscaling reads layer 2's image tokens as stored; see `FusedUpscaling`.
    """

    fp16x3 = True  # float32 operands as two float16 parts
    dtype = torch.float32  # of all kernel inputs

    def __init__(self, model: SAM2Base, pe: Tensor, upscaling: LinearUpscaling) -> None:
        """`pe` are the positions E, [N, C]."""
        super().__init__(model, pe, upscaling)
        # the parent's keys in the kernels' layout, computed once for all images
        self.asked_second, self.asked_last = self._by_token(self.second_keys), self._by_token(self.final_keys)

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens [P, N, C], without the bias of their norm."""
        norm = self.first_norm
        projected = self._by_token(image.first_queries)
        heads, values = self._operand(update.keys.heads), self._operand(update.values)
        keys = update_first(self._operand(image.keys), projected, heads, values, norm.weight, norm.eps, self.fp16x3)
        return keys, self._read(keys, queries, queries.folded, self.asked_second) + norm.bias

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens [P, N, C], without gain and bias of their norm.

        They overwrite the image tokens of layer 1.
        """
        bias, norm = self.first_norm.bias, self.second_norm
        scores = self._scores(update.keys, self.second_queries)
        shift = (update.keys.folded.float() * bias).sum(-1)  # [P, H*T]; autocast would run a matmul in float16
        folded, values = self._operand(update.keys.folded), self._operand(update.values + bias / self.heads)
        update_second(state, scores, folded, shift, values, norm.eps, self.fp16x3)
        context = self._read(state, queries, queries.folded * norm.weight, self.asked_last)
        return state, context * norm.weight + norm.bias

    def _read(self, keys: Tensor, queries: FoldedTokens, folded: Tensor, positions: Tensor) -> Tensor:
        heads, folded = self._operand(queries.heads), self._operand(folded)
        return read_keys(keys, positions, heads, folded, self.fp16x3)

    def _by_token(self, projections: Tensor) -> Tensor:
        """[H, D, N] -> [N, H*D]"""
        return self._operand(projections.permute(2, 0, 1).flatten(1))

    def _scores(self, tokens: FoldedTokens, positions: Tensor) -> Tensor:
        """The part of the scores that comes from positions [H, D, N], one product per head: [H, P*T, N]."""
        heads = tokens.heads.transpose(0, 1).flatten(1, 2)  # [H, P*T, D]
        return heads.to(self.dtype) @ positions.to(self.dtype)

    def _operand(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous()


class Fp16ImageTokens(Fp16x3ImageTokens):
    """Keeps the image tokens of every point in float16, [P, N, C]. Products and the scores of positions are float16."""

    fp16x3 = False
    dtype = torch.float16
