"""The mask decoder with far fewer operations: work that points share is done once, and projections are folded.

This file handles the prompt tokens, `image_tokens.py` the image tokens. Symbols as in `folded_attention.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.decoder import Kept, embed_points
from sam2_amg.network.encoder import ImageFeatures, torch_attention
from sam2_amg.network.folded_attention import FoldedAttention
from sam2_amg.network.image_tokens import ImageTokens, PlainImageTokens, SharedImage, TokenUpdate
from sam2_amg.network.upscaling import LinearUpscaling


@dataclass(frozen=True)
class FoldedAttended:
    """The transformer's output for P points. `hyper` are the mask vectors: their products with pixels are logits."""

    predicted_iou: Tensor  # [P, 3]
    hyper: Tensor  # [P, C/8, 3]
    state: Any  # of the image tokens, one row per point
    image: SharedImage


class FoldedDecoder:
    """sam2's decoder with layer 1's image projections shared by all points, and the other ones folded into tokens.

    Agrees with `PlainDecoder` to rounding (see `FoldedAttention`). It skips work: transposed convolutions run only for
    points with a kept mask, the unused mask token has no hypernetwork, and layer 1's image projections are computed
    once per image.
    """

    at_once = None

    def __init__(
        self,
        model: SAM2Base,
        upscaling: LinearUpscaling | None = None,
        image_tokens: Callable[[SAM2Base, Tensor, LinearUpscaling], ImageTokens] = PlainImageTokens,
        attention: Callable[[Tensor, Tensor, Tensor], Tensor] = torch_attention,
    ) -> None:
        """`upscaling` defaults to `LinearUpscaling`. `Fp16x3ImageTokens` needs `FusedUpscaling`.

        `attention` is that of tokens to each other, and of layer 1's tokens to the image: queries [B, L, H, D], keys
        and values [B, M, H, D] -> [B, L, H, D].

        Raises ValueError if the decoder's structure is not SAM 2's.
        """
        decoder = model.sam_mask_decoder
        if not decoder.use_high_res_features or len(decoder.transformer.layers) != 2:
            raise ValueError("the folded decoder needs high-resolution features and two transformer layers")
        self.model = model
        self.decoder = decoder
        self.attention = attention
        first, second = decoder.transformer.layers
        with torch.autocast(decoder.iou_token.weight.device.type, enabled=False):  # as in `embed_points`
            dense_pe = model.sam_prompt_encoder.get_dense_pe().to(decoder.iou_token.weight.dtype)  # made in float32
        self.pe = dense_pe[0].flatten(1).mT.contiguous()  # [N, C]
        self.first_to_image = FoldedAttention(first.cross_attn_token_to_image)
        self.first_to_tokens = FoldedAttention(first.cross_attn_image_to_token)
        self.second_to_image = FoldedAttention(second.cross_attn_token_to_image)
        self.second_to_tokens = FoldedAttention(second.cross_attn_image_to_token)
        self.final = FoldedAttention(decoder.transformer.final_attn_token_to_image)
        self.upscaling = upscaling or LinearUpscaling(decoder)
        self.image_tokens = image_tokens(model, self.pe, self.upscaling)
        output_tokens = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            output_tokens.insert(0, decoder.obj_score_token.weight)
        self.output_tokens = torch.cat(output_tokens)  # [T - 2, C]
        self.iou_index = int(decoder.pred_obj_scores)

    def prepare(self, features: ImageFeatures) -> SharedImage:
        """Computes what all points of an image share."""
        no_mask = self.model.sam_prompt_encoder.no_mask_embed.weight  # [1, C]
        keys = features.image_embedding[0].flatten(1).mT + no_mask  # [N, C]
        positioned = keys + self.pe
        to_image, to_tokens = self.first_to_image, self.first_to_tokens

        def to_heads(x: Tensor) -> Tensor:  # [N, H*D] -> [H, N, D]
            return x.unflatten(-1, (to_image.heads, -1)).transpose(0, 1)

        children, grandchildren = self.upscaling.arrange(features)
        return SharedImage(
            keys=keys,
            first_keys=to_heads(to_image.attention.k_proj(positioned)).contiguous(),
            first_values=to_heads(to_image.attention.v_proj(keys)).contiguous(),
            first_queries=to_heads(to_tokens.attention.q_proj(positioned)).mT.contiguous(),
            children=children,
            grandchildren=grandchildren,
        )

    def attend(self, prepared: SharedImage, points: Tensor) -> FoldedAttended:
        """Runs the transformer for `points` (float [P, 2], (x, y) in pixels of the model's input)."""
        sparse, _ = embed_points(self.model, points)  # [P, 2, C]
        pe = torch.cat([self.output_tokens.expand(len(points), -1, -1), sparse], dim=1)  # [P, T, C]
        first, second = self.decoder.transformer.layers
        # layer 1: no positions in the first self attention, and image tokens that all points share
        tokens = first.norm1(self._attend(first.self_attn, pe, pe))
        tokens = self._read_image(first, tokens, self._read_shared_image(tokens + pe, prepared))
        update = _tell(self.first_to_tokens, tokens, pe)
        # layer 2
        positioned = tokens + pe
        tokens = second.norm1(tokens + self._attend(second.self_attn, positioned, tokens))
        queries = self.second_to_image.fold_queries(tokens + pe)
        state, context = self.image_tokens.first(prepared, update, queries)
        tokens = self._read_image(second, tokens, self.second_to_image.read_out(context))
        # final attention of tokens to the image
        update = _tell(self.second_to_tokens, tokens, pe)
        state, context = self.image_tokens.second(prepared, state, update, self.final.fold_queries(tokens + pe))
        tokens = self.decoder.transformer.norm_final_attn(tokens + self.final.read_out(context))
        iou = self.decoder.iou_prediction_head(tokens[:, self.iou_index])[:, 1:]  # [P, 3]
        return FoldedAttended(iou, self._hyper(tokens), state, prepared)

    def _attend(self, attention: Attention, positioned: Tensor, tokens: Tensor) -> Tensor:
        """Attention of each point's tokens [P, T, C] to each other."""
        projections = (attention.q_proj(positioned), attention.k_proj(positioned), attention.v_proj(tokens))
        q, k, v = (x.unflatten(-1, (attention.num_heads, -1)) for x in projections)  # [P, T, H, D]
        return attention.out_proj(self.attention(q, k, v).flatten(2))

    @staticmethod
    def _read_image(layer: TwoWayAttentionBlock, tokens: Tensor, attention: Tensor) -> Tensor:
        """The rest of a layer for the tokens: residual, norm, MLP, norm. [P, T, C]"""
        tokens = layer.norm2(tokens + attention)
        return layer.norm3(tokens + layer.mlp(tokens))

    def _read_shared_image(self, tokens: Tensor, prepared: SharedImage) -> Tensor:
        """Layer 1, token to image: a single attention of P*T queries to the shared image tokens. [P, T, C]"""
        attention = self.first_to_image.attention
        q = attention.q_proj(tokens).flatten(0, 1).unflatten(-1, (attention.num_heads, -1))  # [P*T, H, D]
        keys, values = (x.transpose(0, 1) for x in (prepared.first_keys, prepared.first_values))  # [N, H, D]
        out = self.attention(q[None], keys[None], values[None])[0]  # [P*T, H, D]
        return attention.out_proj(out.flatten(1)).unflatten(0, tokens.shape[:2])

    def _hyper(self, tokens: Tensor) -> Tensor:
        """The hypernetworks of the three masks: tokens [P, T, C] -> [P, C/8, 3]."""
        first = self.iou_index + 2  # the token after the IoU token is for single-mask output, which is not used
        mlps = list(self.decoder.output_hypernetworks_mlps)[1:]
        return torch.stack([mlp(tokens[:, first + i]) for i, mlp in enumerate(mlps)], dim=2)

    def predict_masks(self, attended: FoldedAttended, kept: Kept) -> Tensor:
        """Low-res logits of the kept masks, float [n, 4h, 4w]; only their points are upscaled."""
        points, row = kept.point.unique(return_inverse=True)  # [U], [n]
        state = attended.state[points]
        logits = self.image_tokens.upscale(attended.image, state, attended.hyper[points])  # [U, 3, 4h, 4w]
        return logits[row, kept.mask]


def _tell(attention: FoldedAttention, tokens: Tensor, pe: Tensor) -> TokenUpdate:
    """The update of the image tokens by tokens [P, T, C] in a layer."""
    return TokenUpdate(attention.fold_keys(tokens + pe), attention.fold_values(tokens))
