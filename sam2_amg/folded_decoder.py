"""The mask decoder with far fewer operations: what points share is computed once, what they do not is folded.

Symbols in the shape comments: P points, T tokens a point (8, or 7 without an object-score token), H heads,
D channels a head, C channels of the transformer (256), N image tokens (h * w), U points with a kept mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.decoder import Kept, embed_points
from sam2_amg.encoder import ImageFeatures

NUM_MASKS = 3  # sam2 drops the first of its four mask tokens when it answers a point with several masks


@dataclass(frozen=True)
class _Prepared:
    """What the folded decoder needs of one image, none of it depending on a point."""

    keys: Tensor  # [N, C] image tokens of layer 1
    key_heads: Tensor  # [H, D, N] layer 1, token to image: projected keys
    value_heads: Tensor  # [H, N, D] layer 1, token to image: projected values
    query_heads: Tensor  # [H, D, N] layer 1, image to token: projected, scaled queries
    feat_s1: Tensor  # [N, 2*2, C/4] in the order in which the first transposed convolution writes
    feat_s0: Tensor  # [N, 2*2, 2*2*C/8] likewise for the second
    grid: tuple[int, int]  # (h, w) with h * w = N


@dataclass(frozen=True)
class _FoldedAttended:
    predicted_iou: Tensor  # [P, 3]
    mask_tokens: Tensor  # [P, 3, C]
    keys: Tensor  # [P, N, C] image tokens after the transformer
    prepared: _Prepared


class _FoldedAttention:
    """One cross attention between T tokens and N image tokens with its projections folded into the tokens.

    With keys K, positions E, tokens q and the rows of the weights split by head h (head width d):

        token to image:  s = (K + E) (Wk_h^T (Wq q + bq)_h) / sqrt(d), softmax over the N image tokens;
                         out = Wo concat_h(Wv_h (a^T K) + bv_h) + bo
        image to token:  s = (K + E) (Wq_h^T k) / sqrt(d) + bq_h . k / sqrt(d), softmax over the T tokens;
                         out = sum_ht a_ht (Wo_h v_ht + bo / H)

    A key bias is the same for every image token and cancels in the first softmax. In the second the weights of a
    head sum to one, so a share of the output bias added to every folded value adds up to the bias.
    """

    def __init__(self, attention: Attention, pe: Tensor) -> None:
        """Splits the weights of sam2's `attention` by head; `pe` is E, [N, C]."""
        heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
        self.attention = attention
        self.scale = width**-0.5
        self.wq = attention.q_proj.weight.unflatten(0, (heads, width))  # [H, D, C]
        self.wk = attention.k_proj.weight.unflatten(0, (heads, width))  # [H, D, C]
        self.wv = attention.v_proj.weight.unflatten(0, (heads, width)).mT  # [H, C, D]
        self.bv = attention.v_proj.bias.unflatten(0, (heads, 1, width))  # [H, 1, D]
        self.wo = attention.out_proj.weight.unflatten(1, (heads, width)).permute(1, 2, 0)  # [H, D, C]
        self.pe_keys = (self.wk @ pe.mT).contiguous()  # [H, D, N]
        self.pe_queries = ((self.wq @ pe.mT) + attention.q_proj.bias.unflatten(0, (heads, width, 1))).contiguous()

    def split_heads(self, x: Tensor) -> Tensor:
        """[P, T, H*D] -> [P, H, T, D]"""
        return x.unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2)

    def tokens_to_image(self, tokens: Tensor, keys: Tensor) -> Tensor:
        """Attention of `tokens` [P, T, C] to image tokens `keys` [P, N, C] -> [P, T, C]."""
        q = self.split_heads(self.attention.q_proj(tokens)) * self.scale  # [P, H, T, D]
        folded = (q @ self.wk).flatten(1, 2)  # [P, H*T, C]
        scores = torch.baddbmm((q @ self.pe_keys).flatten(1, 2), folded, keys.mT)  # [P, H*T, N]
        context = scores.softmax(-1) @ keys  # [P, H*T, C]
        values = context.unflatten(1, q.shape[1:3]) @ self.wv + self.bv  # [P, H, T, D]
        return self.attention.out_proj(values.transpose(1, 2).flatten(2))

    def fold_values(self, tokens: Tensor) -> Tensor:
        """What one unit of attention adds to an image token: [P, T, C] -> [P, H*T, C]."""
        v = self.split_heads(self.attention.v_proj(tokens))  # [P, H, T, D]
        return (v @ self.wo + self.attention.out_proj.bias / self.attention.num_heads).flatten(1, 2)

    def image_to_tokens(self, keys: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """`keys` [P, N, C] plus their attention to `tokens` [P, T, C], whose values come from `values` [P, T, C]."""
        k = self.split_heads(self.attention.k_proj(tokens)) * self.scale  # [P, H, T, D]
        folded = (k @ self.wq).flatten(1, 2)  # [P, H*T, C]
        scores = torch.baddbmm((k @ self.pe_queries).flatten(1, 2), folded, keys.mT)  # [P, H*T, N]
        weights = scores.unflatten(1, k.shape[1:3]).softmax(2).flatten(1, 2)  # softmax over T
        return torch.baddbmm(keys, weights.mT, self.fold_values(values))


class FoldedDecoder:
    """sam2's decoder with layer 1's image projections shared by all points and every other one folded into tokens.

    Agrees with `PlainDecoder` to rounding: the algebra is exact (see `_FoldedAttention`). It differs in what it leaves
    out: transposed convolutions and hypernetworks run for points with a kept mask only, the mask token that several
    masks never use has no hypernetwork, and the image's share of layer 1 is computed once, not once a point.
    """

    def __init__(self, model: SAM2Base) -> None:
        """Raises ValueError for a decoder of another build than SAM 2's."""
        decoder = model.sam_mask_decoder
        if not decoder.use_high_res_features or len(decoder.transformer.layers) != 2:
            raise ValueError("the folded decoder needs high-resolution features and two transformer layers")
        self.model = model
        self.decoder = decoder
        first, second = decoder.transformer.layers
        dense_pe = model.sam_prompt_encoder.get_dense_pe().to(decoder.iou_token.weight.dtype)  # always made in float32
        self.pe = dense_pe[0].flatten(1).mT.contiguous()  # [N, C]
        self.final = _FoldedAttention(decoder.transformer.final_attn_token_to_image, self.pe)
        self.first_to_image = _FoldedAttention(first.cross_attn_token_to_image, self.pe)
        self.first_to_tokens = _FoldedAttention(first.cross_attn_image_to_token, self.pe)
        self.second_to_image = _FoldedAttention(second.cross_attn_token_to_image, self.pe)
        self.second_to_tokens = _FoldedAttention(second.cross_attn_image_to_token, self.pe)
        upscale_1, self.upscale_norm, _, upscale_2, _ = decoder.output_upscaling
        # A transposed convolution of kernel 2 and stride 2 is a linear layer from a pixel to its 2 x 2 children.
        self.upscale_1 = upscale_1.weight.permute(0, 2, 3, 1).flatten(1)  # [C, 2*2*C/4]
        self.upscale_2 = upscale_2.weight.permute(0, 2, 3, 1).flatten(1)  # [C/4, 2*2*C/8]
        self.upscale_biases = upscale_1.bias, upscale_2.bias
        output_tokens = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            output_tokens.insert(0, decoder.obj_score_token.weight)
        self.output_tokens = torch.cat(output_tokens)  # [T - 2, C]
        self.iou_index = int(decoder.pred_obj_scores)

    def prepare(self, features: ImageFeatures) -> _Prepared:
        """Computes what all points of an image share."""
        no_mask = self.model.sam_prompt_encoder.no_mask_embed.weight  # [1, C]
        h, w = features.image_embedding.shape[-2:]
        keys = features.image_embedding[0].flatten(1).mT + no_mask  # [N, C]
        positioned = keys + self.pe
        to_image, to_tokens = self.first_to_image, self.first_to_tokens
        heads = to_image.attention.num_heads

        def split(x: Tensor) -> Tensor:  # [N, H*D] -> [H, N, D]
            return x.unflatten(-1, (heads, -1)).transpose(0, 1)

        s0, s1 = features.high_res_features
        bias_1, bias_2 = self.upscale_biases
        # [1, c, 2h, 2w] -> [h, w, 2*2, c]: each image token's children side by side
        s1 = s1[0].unflatten(2, (w, 2)).unflatten(1, (h, 2)).permute(1, 3, 2, 4, 0)
        # [1, c, 4h, 4w] -> [h, w, 2*2, 2*2*c]: grandchildren within children
        s0 = s0[0].unflatten(2, (w, 2, 2)).unflatten(1, (h, 2, 2)).permute(1, 4, 2, 5, 3, 6, 0)
        return _Prepared(
            keys=keys,
            key_heads=split(to_image.attention.k_proj(positioned)).mT.contiguous(),
            value_heads=split(to_image.attention.v_proj(keys)).contiguous(),
            query_heads=(split(to_tokens.attention.q_proj(positioned)).mT * to_tokens.scale).contiguous(),
            feat_s1=(s1 + bias_1).reshape(h * w, 4, -1),
            feat_s0=(s0 + bias_2).reshape(h * w, 4, -1),
            grid=(h, w),
        )

    def attend(self, prepared: _Prepared, points: Tensor) -> _FoldedAttended:
        """Runs the transformer for `points` (float [P, 2], (x, y) in pixels of the model's input)."""
        sparse, _ = embed_points(self.model, points)  # [P, 2, C]
        pe = torch.cat([self.output_tokens.expand(len(points), -1, -1), sparse], dim=1)  # [P, T, C]
        first, second = self.decoder.transformer.layers
        # layer 1: no positions in the first self attention, and image tokens that all points share
        tokens = first.norm1(first.self_attn(q=pe, k=pe, v=pe))
        tokens = self._read_image(first, tokens, pe, self._first_to_image(tokens + pe, prepared))
        keys = first.norm4(self._first_to_tokens(tokens + pe, tokens, prepared))  # [P, N, C]
        # layer 2
        positioned = tokens + pe
        tokens = second.norm1(tokens + second.self_attn(q=positioned, k=positioned, v=tokens))
        tokens = self._read_image(second, tokens, pe, self.second_to_image.tokens_to_image(tokens + pe, keys))
        keys = second.norm4(self.second_to_tokens.image_to_tokens(keys, tokens + pe, tokens))
        # the tokens' last look at the image
        tokens = tokens + self.final.tokens_to_image(tokens + pe, keys)
        tokens = self.decoder.transformer.norm_final_attn(tokens)
        iou = self.decoder.iou_prediction_head(tokens[:, self.iou_index])[:, 1:]  # [P, 3]
        first_mask = self.iou_index + 2  # the token behind the IoU token answers alone; its mask is not used
        return _FoldedAttended(iou, tokens[:, first_mask : first_mask + NUM_MASKS], keys, prepared)

    @staticmethod
    def _read_image(layer: TwoWayAttentionBlock, tokens: Tensor, pe: Tensor, attention: Tensor) -> Tensor:
        """The rest of a layer on the token side: residual, norm, MLP, norm. [P, T, C]"""
        tokens = layer.norm2(tokens + attention)
        return layer.norm3(tokens + layer.mlp(tokens))

    def _first_to_image(self, tokens: Tensor, prepared: _Prepared) -> Tensor:
        """Layer 1, token to image: one attention of P*T queries to the shared image tokens. [P, T, C]"""
        attention = self.first_to_image.attention
        q = attention.q_proj(tokens).flatten(0, 1)  # [P*T, H*D]
        q = q.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)  # [H, P*T, D]
        out = F.scaled_dot_product_attention(q[None], prepared.key_heads.mT[None], prepared.value_heads[None])[0]
        return attention.out_proj(out.transpose(0, 1).flatten(1)).unflatten(0, tokens.shape[:2])

    def _first_to_tokens(self, tokens: Tensor, values: Tensor, prepared: _Prepared) -> Tensor:
        """Layer 1, image to token: shared queries, keys and values of each point. [P, N, C]"""
        attention = self.first_to_tokens
        k = attention.split_heads(attention.attention.k_proj(tokens))  # [P, H, T, D]
        weights = (k @ prepared.query_heads).softmax(2).flatten(1, 2)  # [P, H*T, N]
        keys = prepared.keys.expand(len(tokens), -1, -1)  # [P, N, C]
        return torch.baddbmm(keys, weights.mT, attention.fold_values(values))

    def predict_masks(self, attended: _FoldedAttended, kept: Kept) -> Tensor:
        """Low-res logits of the kept masks, float [n, 4h, 4w]; only their points are upscaled."""
        prepared = attended.prepared
        h, w = prepared.grid
        points, row = kept.point.unique(return_inverse=True)  # [U], [n]
        mlps = list(self.decoder.output_hypernetworks_mlps)[1:]
        tokens = attended.mask_tokens[points]  # [U, 3, C]
        hyper = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=2)  # [U, C/8, 3]
        x = (attended.keys[points] @ self.upscale_1).unflatten(-1, (4, -1))  # [U, N, 2*2, C/4]
        norm = self.upscale_norm
        x = F.gelu(F.layer_norm(x + prepared.feat_s1, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        x = F.gelu(x @ self.upscale_2 + prepared.feat_s0)  # [U, N, 2*2, 2*2*C/8]
        logits = x.reshape(len(points), h * w * 16, hyper.shape[1]) @ hyper  # [U, N*2*2*2*2, 3]
        logits = logits.reshape(len(points), h, w, 2, 2, 2, 2, NUM_MASKS)[row, ..., kept.mask]
        return logits.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * h, 4 * w)
