"""Image tokens of the folded decoder with the kernels of `kernels/image_attention.py`, in fp16x3 or float16.

The kernels store image tokens without part of LayerNorm's affine map, gain g and bias b, and in layer 1 without a
vector d, which is near their mean over pixels. Both are folded into the vectors, with c = b + d:

    layer 1, keys = stored + c:    keys . w = stored . w + c . w
                                   keys + sum_ht a_ht v_ht = stored + sum_ht a_ht (v_ht + c / H)
                                   sum_n a_n keys = sum_n a_n stored + c
    layer 2, keys = g stored + b:  keys . u = stored . (g u) + b . u
                                   sum_n a_n keys = g (sum_n a_n stored) + b

because the weights of a head sum to one, and a constant added to all scores of a softmax cancels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.kernels.fp16x3 import fp16_parts
from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network.folded_attention import FoldedTokens
from sam2_amg.network.image_tokens import PlainImageTokens, SharedImage, TokenUpdate
from sam2_amg.network.layer_norm import without_mean
from sam2_amg.network.upscaling import LinearUpscaling


class Fp16x3ImageTokens(PlainImageTokens):
    """Keeps the image tokens of every point in two float16 parts, [P, 2, N, C], which have 22 bits together.

    Upscaling reads layer 2's image tokens as stored; see `FusedUpscaling`.
    """

    fp16x3 = True
    dtype = torch.float32  # of what kernels take of prompt tokens, and of the shared image tokens

    def __init__(self, model: SAM2Base, pe: Tensor, upscaling: LinearUpscaling) -> None:
        """`pe` are the positions E, [N, C]."""
        super().__init__(model, pe, upscaling)
        # the parent's keys and queries in the kernels' layout, computed once for all images
        self.asked_second, self.asked_last = self._by_token(self.second_keys), self._by_token(self.final_keys)
        self.asking_second = self.second_queries.permute(2, 0, 1).flatten(1).contiguous()  # [N, H*D], float32

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens, without the bias of their norm, centred."""
        norm = self.first_norm
        centre, after = centres(image.keys, norm)
        keys, projected = self._operand(without_mean(image.keys - centre)), self._by_token(image.first_queries)
        heads, values = self._operand(update.keys.heads), self._operand(without_mean(update.values))
        vectors = without_mean(centre), projected, heads, values, norm.weight, after
        keys = update_first(keys, *vectors, norm.eps, self.fp16x3)
        return keys, self._read(keys, queries, queries.folded, self.asked_second) + norm.bias + after

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`; the state is the image tokens, without gain and bias of their norm.

        They overwrite the image tokens of layer 1.
        """
        constant, norm = self.first_norm.bias + centres(image.keys, self.first_norm)[1], self.second_norm
        scores, steps = position_scores(self.asking_second, update.keys.heads.contiguous(), not self.fp16x3)
        shift = (update.keys.folded * constant).sum(-1)  # [P, H*T]
        folded, values = self._operand(update.keys.folded), self._operand(update.values + constant / self.heads)
        update_second(state, scores, steps, shift, folded, values, norm.eps, self.fp16x3)
        context = self._read(state, queries, queries.folded * norm.weight, self.asked_last)
        return state, context * norm.weight + norm.bias

    def upscale(self, image: SharedImage, state: Tensor, hyper: Tensor) -> Tensor:
        """See `ImageTokens`; in plain torch, beside the kernel of `FusedUpscaling`."""
        return super().upscale(image, state.float().sum(1) if self.fp16x3 else state.float(), hyper)

    def _read(self, keys: Tensor, queries: FoldedTokens, folded: Tensor, positions: Tensor) -> Tensor:
        heads, folded = self._operand(queries.heads), self._operand(folded)
        return read_keys(keys, positions, heads, folded, self.fp16x3)

    def _by_token(self, projections: Tensor) -> Tensor:
        """[H, D, N] -> [2, N, H*D], high and low parts."""
        return fp16_parts(projections.permute(2, 0, 1).flatten(1))

    def _operand(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous()


def centres(keys: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Vectors [C] near the means over pixels of the image tokens `keys` [N, C], and of those after layer 1's `norm`.

    The second is without the norm's bias, and without the update, which differs between points. Any vectors would do:
    those near the mean leave small numbers, which float16 rounds by less.
    """
    return keys.mean(0), F.layer_norm(keys, norm.normalized_shape, norm.weight, None, norm.eps).mean(0)


class Fp16ImageTokens(Fp16x3ImageTokens):
    """Keeps the image tokens of every point in float16, [P, N, C], with float16 products.

    The weights of layer 2 and the scores of its positions are more exact than float16; see the kernels.
    """

    fp16x3 = False
    dtype = torch.float16

    def _by_token(self, projections: Tensor) -> Tensor:
        """[H, D, N] -> [N, H*D]"""
        return self._operand(projections.permute(2, 0, 1).flatten(1))
