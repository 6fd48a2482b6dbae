"""The image side of the mask decoder without image tokens in memory: each tile is recomputed where it is read.

A program takes a point and walks over tiles of image tokens. `first` makes keys1 and lets layer 2's tokens read it;
`second` makes keys1 again, keys2 of it, and lets the tokens read that in the end. Both are tested against
`image_side.PlainImageSide`. No mode uses them yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from sam2_amg.folded_attention import FoldedTokens
from sam2_amg.image_side import PlainImageSide, SharedImage, TokenUpdate
from sam2_amg.kernels.image_tokens import (
    CHANNELS,
    HEADS,
    WIDTH,
    begin_reading,
    load_point,
    load_vectors,
    make_first_keys,
    make_second_keys,
    read_tile,
    store_context,
    tile_rows,
)
from sam2_amg.kernels.launch import require_kernel_device

# What fits into Hopper's 227 KiB of shared memory, by the compiler's listing: 192 KiB and 224 KiB. A tile of 128 takes
# half as many instructions an image token as one of 64, but with it `second` would need 272 KiB.
FIRST_LAUNCH = {"BLOCK": 128, "num_warps": 8, "num_stages": 1}
SECOND_LAUNCH = {"BLOCK": 64, "num_warps": 8, "num_stages": 1}


@triton.jit
def first_kernel(
    keys, queries, told, values, eps, positions, asking, folded, context,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Layer 1's update and layer 2's reading: context [P, H*T, C] float32, a program a point."""
    point = tl.program_id(0).to(tl.int64)
    told_1, values_1 = load_point(told, values, point, TOKENS)
    asking_2, folded_2 = load_point(asking, folded, point, TOKENS)
    most, total, read = begin_reading()
    for start in range(0, PIXELS, BLOCK):
        n = start + tl.arange(0, BLOCK)
        first = make_first_keys(keys, queries, n, told_1, values_1, eps, TOKENS, PRECISION, BLOCK)
        tile = first.to(values_1.dtype)
        most, total, read = read_tile(tile, positions, n, folded_2, asking_2, most, total, read, PRECISION)
    store_context(context + point * HEADS * TOKENS * CHANNELS, read, total, TOKENS)


@triton.jit
def second_kernel(
    keys, queries, told, values, eps, gain, positions_2, told_2, folded_2, shift_2, values_2, eps_2,
    positions, asking, folded, context,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Both layers' updates and the last reading: context [P, H*T, C] float32, a program a point."""
    point = tl.program_id(0).to(tl.int64)
    told_1, values_1 = load_point(told, values, point, TOKENS)
    told_2, keys_2 = load_point(told_2, folded_2, point, TOKENS)
    values_2 = load_vectors(values_2 + point * HEADS * TOKENS * CHANNELS, TOKENS)
    source, real = tile_rows(TOKENS)
    shift = tl.load(shift_2 + point * HEADS * TOKENS + source, mask=real, other=0.0)
    asking_3, folded_3 = load_point(asking, folded, point, TOKENS)
    gain_1 = tl.load(gain + tl.arange(0, CHANNELS))
    most, total, read = begin_reading()
    for start in range(0, PIXELS, BLOCK):
        n = start + tl.arange(0, BLOCK)
        first = make_first_keys(keys, queries, n, told_1, values_1, eps, TOKENS, PRECISION, BLOCK)
        second = make_second_keys(
            first, gain_1, positions_2, n, keys_2, told_2, shift, values_2, eps_2, TOKENS, PRECISION, BLOCK
        )
        tile = second.to(values_1.dtype)
        most, total, read = read_tile(tile, positions, n, folded_3, asking_3, most, total, read, PRECISION)
    store_context(context + point * HEADS * TOKENS * CHANNELS, read, total, TOKENS)


@dataclass(frozen=True)
class RecomputedReading:
    """What tokens read of image tokens that are never stored; `dtype` is that of the products' operands."""

    plain: PlainImageSide
    dtype: torch.dtype

    def first(self, image: SharedImage, update: TokenUpdate, queries: FoldedTokens) -> Tensor:
        """The context that `PlainImageSide.first` answers, float32 [P, H*T, C]."""
        norm = self.plain.first_norm
        context, shape = self._start(image, update)
        first_kernel[(len(context),)](
            *self._layer_1(image, update),
            *self._reading(queries, norm, self.plain.second_keys),
            context,
            **shape,
            **FIRST_LAUNCH,
        )
        return context * norm.weight + norm.bias

    def second(self, image: SharedImage, first: TokenUpdate, update: TokenUpdate, queries: FoldedTokens) -> Tensor:
        """The context that `PlainImageSide.second` answers after `first`, float32 [P, H*T, C]."""
        norm_1, norm_2 = self.plain.first_norm, self.plain.second_norm
        context, shape = self._start(image, update)
        values = update.values + norm_1.bias / int(HEADS)  # the weights of a head add up to one
        second_kernel[(len(context),)](
            *self._layer_1(image, first),
            norm_1.weight,
            self._rows(self.plain.second_queries),
            self._operand(update.keys.heads),
            self._operand(update.keys.folded * norm_1.weight),
            (update.keys.folded @ norm_1.bias).contiguous(),
            self._operand(values),
            norm_2.eps,
            *self._reading(queries, norm_2, self.plain.final_keys),
            context,
            **shape,
            **SECOND_LAUNCH,
        )
        return context * norm_2.weight + norm_2.bias

    def _start(self, image: SharedImage, update: TokenUpdate) -> tuple[Tensor, dict[str, object]]:
        require_kernel_device(image.keys, "the image tokens")
        pixels, channels = image.keys.shape
        tokens = update.values.shape[1] // int(HEADS)
        width = update.keys.heads.shape[3]
        if (channels, width) != (int(CHANNELS), int(WIDTH)) or pixels % FIRST_LAUNCH["BLOCK"] or tokens not in (7, 8):
            what = f"{pixels} x {channels} image tokens and {tokens} tokens of {width} channels a head"
            raise ValueError(f"written for SAM 2's decoder, not for {what}")
        exact = "ieee" if self.dtype == torch.float32 else "tf32"  # which is about float32 operands alone
        shape = {"PIXELS": pixels, "TOKENS": tokens, "PRECISION": exact}
        return torch.empty_like(update.values, dtype=torch.float32), shape

    def _layer_1(self, image: SharedImage, update: TokenUpdate) -> tuple[object, ...]:
        keys, queries = self._operand(image.keys), self._rows(image.first_queries)
        return keys, queries, self._operand(update.keys.heads), self._operand(update.values), self.plain.first_norm.eps

    def _reading(self, queries: FoldedTokens, norm: nn.LayerNorm, positions: Tensor) -> tuple[Tensor, ...]:
        """The norm's gain goes into the vectors; its bias adds the same to all scores of a vector, and cancels."""
        return self._rows(positions), self._operand(queries.heads), self._operand(queries.folded * norm.weight)

    def _operand(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous()

    def _rows(self, x: Tensor) -> Tensor:
        """[H, D, N] -> [N, H*D]"""
        return self._operand(x.permute(2, 0, 1).flatten(1))
