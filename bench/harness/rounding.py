"""The network in float32, with chosen numbers rounded to float16: each place that a network in float16 rounds at has a
name, and rounds only if it is asked to. `rounded_by_furious` says which of them that mode rounds at.

A place stands for operands of a product, and with ", stored" for what is stored of it, as tensor cores take and kernels
store them. Sums are float32, as on a GPU, but in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import Attention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.kernels.position_scores import integer_steps
from sam2_amg.network.encoder import LaidOutAttention, PlainEncoder
from sam2_amg.network.folded_attention import FoldedAttention, FoldedTokens, ask_tokens, position_scores
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import centres
from sam2_amg.network.image_tokens import PlainImageTokens, SharedImage, TokenUpdate
from sam2_amg.network.layer_norm import without_mean
from sam2_amg.network.upscaling import LinearUpscaling, square_side

# where furious has float32, fp16x3, or two float16 parts
_EXACT = (
    *("patch embedding", "neck", "tokens: "),
    *(f"stage {stage}, {layer}" for stage in (1, 2) for layer in ("attention's last", "MLP's first")),
    *("image: in memory, shared", "image: in memory, layer 1", "image: scores, layer 2: image tokens"),
    *("image: scores, layer 2: positions, operands", "image: scores, layer 2: positions, stored"),
    "image: weights, layer 2",
)
_EXACT_ENDS = (
    *("shortcut", "shortcut, stored", "attention's last, stored"),
    *("MLP's first, stored", "MLP's second, stored"),
)
_CENTRED, _INTEGERS = ", centred", ", as integers"


def rounded_by_furious(place: str) -> bool:
    """Whether mode furious rounds at a place."""
    if place.endswith((_CENTRED, _INTEGERS)):
        return True
    return not place.startswith(_EXACT) and not place.endswith(_EXACT_ENDS)


@dataclass
class Rounding:
    """Rounds float32 tensors at the places that are asked for. `known` are all that were seen."""

    places: frozenset[str] = frozenset()
    known: set[str] = field(default_factory=set)

    def __call__(self, place: str, x: Tensor) -> Tensor:
        """float32 -> float32 that float16 can hold."""
        self.known.add(place)
        return x.half().float() if place in self.places else x

    def centred(self, place: str, x: Tensor, centre: Tensor) -> Tensor:
        """At `place` rounds `x`, at the place of the same name with ", centred" `x - centre`."""
        x = self(place, x)
        return centre + self(place + _CENTRED, x - centre)

    def as_integers(self, place: str, x: Tensor, steps: Tensor) -> Tensor:
        """At the place of this name with ", as integers", rounds to multiples of `steps`."""
        self.known.add(place + _INTEGERS)
        return (x / steps).round() * steps if place + _INTEGERS in self.places else x


class RoundedLayer(nn.Module):
    """A linear layer or a convolution."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rounding: Rounding, place: str) -> None:
        super().__init__()
        self.layer, self.rounding, self.place = layer, rounding, place
        self.weight, self.bias = layer.weight, layer.bias  # what others read of the layer

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's, from rounded input and weights, rounded."""
        layer = self.layer
        x, weight = self.rounding(self.place, x), self.rounding(self.place, layer.weight)
        if isinstance(layer, nn.Linear):
            found = F.linear(x, weight, layer.bias)
        else:
            found = F.conv2d(x, weight, layer.bias, layer.stride, layer.padding)
        return self.rounding(f"{self.place}, stored", found)


def rounded_encoder(model: SAM2Base, rounding: Rounding) -> PlainEncoder:
    """The encoder; modifies `model`. Places: "patch embedding", "neck", and "stage 3, MLP's first" for each stage."""
    encoder = PlainEncoder(model)
    trunk = encoder.trunk
    trunk.patch_embed.proj = RoundedLayer(trunk.patch_embed.proj, rounding, "patch embedding")
    for index, block in enumerate(trunk.blocks):
        stage = f"stage {sum(index > end for end in trunk.stage_ends) + 1}"
        attention = LaidOutAttention(block.attn, _attention(rounding, f"{stage}, attention"))
        attention.qkv = RoundedLayer(attention.qkv, rounding, f"{stage}, queries, keys and values")
        attention.proj = RoundedLayer(attention.proj, rounding, f"{stage}, attention's last")
        block.attn = attention
        for layer, name in enumerate(("MLP's first", "MLP's second")):
            block.mlp.layers[layer] = RoundedLayer(block.mlp.layers[layer], rounding, f"{stage}, {name}")
        if block.dim != block.dim_out:
            block.proj = RoundedLayer(block.proj, rounding, f"{stage}, shortcut")
    for convolution in encoder.convs:
        convolution.conv = RoundedLayer(convolution.conv, rounding, "neck")
    encoder.conv_s0, encoder.conv_s1 = (
        RoundedLayer(layer, rounding, "neck") for layer in (encoder.conv_s0, encoder.conv_s1)
    )
    return encoder


def _attention(rounding: Rounding, place: str) -> Any:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (rounding(place, x).transpose(1, 2) for x in (q, k, v))  # [B, H, L, D]
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        found = (rounding(place, weights) @ v) / weights.sum(-1, keepdim=True)
        return found.transpose(1, 2)  # an operand of "attention's last"

    return attend


class RoundedFolding(FoldedAttention):
    """The folding of prompt tokens. Place: "tokens: folding"."""

    def __init__(self, attention: Attention, rounding: Rounding) -> None:
        super().__init__(attention)
        self.rounding = rounding

    def split_heads(self, x: Tensor) -> Tensor:
        """See `FoldedAttention`. Its scale is a power of two, so that rounding may come before it."""
        return self._round(super().split_heads(x))

    def fold(self, x: Tensor, weights: Tensor) -> Tensor:
        """See `FoldedAttention`."""
        return self._round(super().fold(self._round(x), self._round(weights)))

    def _round(self, x: Tensor) -> Tensor:
        return self.rounding("tokens: folding", x)


class RoundedImageTokens(PlainImageTokens):
    """Image tokens as `Fp16ImageTokens` keeps them, without gain and bias of their norms. Places: "image: ..."."""

    def __init__(self, model: SAM2Base, pe: Tensor, upscaling: LinearUpscaling, rounding: Rounding) -> None:
        super().__init__(model, pe, upscaling)
        self.rounding = rounding

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`."""
        heads, asked = (self._round("scores, layer 1", x) for x in (update.keys.heads, image.first_queries))
        weights = ask_tokens((heads @ asked).flatten(1, 2), self.heads)  # [P, H*T, N]
        norm = self.first_norm
        centre, after = centres(image.keys, norm)
        shared = self.rounding.centred("image: in memory, shared", without_mean(image.keys), without_mean(centre))
        before = shared.expand(len(weights), -1, -1)
        keys = self._updated(before, weights, without_mean(update.values), "1", norm) * norm.weight
        keys = self.rounding.centred("image: in memory, layer 1", keys, after)
        return keys, self._read(queries, queries.folded, keys - after, self.second_keys) + norm.bias + after

    def second(
        self, image: SharedImage, state: Tensor, update: TokenUpdate, queries: FoldedTokens
    ) -> tuple[Tensor, Tensor]:
        """See `ImageTokens`."""
        bias, norm, place = self.first_norm.bias, self.second_norm, "scores, layer 2: positions"
        after = centres(image.keys, self.first_norm)[1]
        heads, positions = (self._round(f"{place}, operands", x) for x in (update.keys.heads, self.second_queries))
        scores = position_scores(FoldedTokens(heads, update.keys.folded), positions)  # [P, H*T, N]
        by_pixel = self.second_queries.permute(2, 0, 1).flatten(1)  # [N, H*D]
        scores = self.rounding.as_integers(f"image: {place}", scores, integer_steps(by_pixel, heads)[..., None])
        scores = self._round(f"{place}, stored", scores)
        folded, place = update.keys.folded, "scores, layer 2: image tokens"
        scores = scores + self._round(place, folded) @ self._round(place, state).mT
        error = self._round(place + _CENTRED, folded) - folded
        scores = scores + error @ (state - after).mT + (folded * bias).sum(-1, keepdim=True)
        weights = ask_tokens(scores, self.heads)
        keys = self._updated(state - after, weights, update.values + (bias + after) / self.heads, "2", norm)
        keys = self._round("in memory, layer 2", keys)
        context = self._read(queries, queries.folded * norm.weight, keys, self.final_keys)
        return keys, context * norm.weight + norm.bias

    def upscale(self, image: SharedImage, state: Tensor, hyper: Tensor) -> Tensor:
        """See `ImageTokens`."""
        upscaling, norm, side = self.upscaling, self.upscaling.norm, square_side(state.shape[1])
        gain, bias = self.second_norm.weight, self.second_norm.bias
        by_child = without_mean(upscaling.first.unflatten(1, (4, -1)))  # [C, 4, C/4]
        first, second = (
            self._round("upscaling: weights", x) for x in (gain[:, None] * by_child.flatten(1), upscaling.second)
        )
        features = without_mean(image.children + (bias @ upscaling.first).unflatten(0, (4, -1))), image.grandchildren
        children, grandchildren = (self._round("upscaling: features", x) for x in features)
        x = (self._round("upscaling: image tokens", state) @ first).unflatten(-1, (4, -1))
        x = F.gelu(F.layer_norm(x + children, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        x = F.gelu(self._round("upscaling: between", x) @ second + grandchildren)  # [U, N, 2*2, 2*2*C/8]
        logits = x.reshape(len(state), 16 * side * side, hyper.shape[1]) @ hyper
        logits = logits.reshape(len(state), side, side, 2, 2, 2, 2, hyper.shape[2])
        return logits.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)

    def _updated(self, before: Tensor, weights: Tensor, values: Tensor, layer: str, norm: nn.LayerNorm) -> Tensor:
        """Normalised, without gain and bias."""
        weights, values = self._round(f"weights, layer {layer}", weights), self._round(f"values, layer {layer}", values)
        return F.layer_norm(torch.baddbmm(before, weights.mT, values), norm.weight.shape, None, None, norm.eps)

    def _read(self, queries: FoldedTokens, folded: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        heads, positions = (self._round("reading: positions", x) for x in (queries.heads, positions))
        folded, keys = (self._round("reading: image tokens", x) for x in (folded, keys))
        scores = (heads @ positions).flatten(1, 2) + folded @ keys.mT
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return (self._round("reading: weights", weights) @ keys) / weights.sum(-1, keepdim=True)

    def _round(self, place: str, x: Tensor) -> Tensor:
        return self.rounding(f"image: {place}", x)


def rounded_decoder(model: SAM2Base, rounding: Rounding) -> FoldedDecoder:
    """The decoder; modifies `model`. Places: "image: ..." for image tokens, "tokens: ..." for prompt tokens."""
    decoder = FoldedDecoder(model, None, partial(RoundedImageTokens, rounding=rounding))
    for name in ("first_to_image", "first_to_tokens", "second_to_image", "second_to_tokens", "final"):
        setattr(decoder, name, RoundedFolding(getattr(decoder, name).attention, rounding))
    transformer = decoder.decoder.transformer
    for module in list(transformer.modules()):
        if isinstance(module, Attention):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(module, name, RoundedLayer(getattr(module, name), rounding, "tokens: projections"))
    for layer in transformer.layers:
        for i, linear in enumerate(layer.mlp.layers):
            layer.mlp.layers[i] = RoundedLayer(linear, rounding, "tokens: MLP")
    for mlp in decoder.decoder.output_hypernetworks_mlps:
        for i, linear in enumerate(mlp.layers):
            mlp.layers[i] = RoundedLayer(linear, rounding, "tokens: hypernetworks")
    return decoder
