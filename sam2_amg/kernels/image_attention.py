"""Updates of the mask decoder's image tokens and attention to them, in three kernels on tensor cores.

    update_first:  keys1 = gain LayerNorm(keys + m + sum_ht softmax_t(q . k_ht) v_ht) - d, image-to-token attention
    update_second: keys2 = LayerNorm(keys1 + sum_ht softmax_t(keys1 . w_ht + s_ht) v_ht), the same in layer 2
    read_keys:     context_ht = sum_n softmax_n(keys . u_ht + e . q_ht) keys, token-to-image attention

with keys [N, C] of a point, h heads, t tokens. q and e are projections of image tokens and of positions that all points
share. m is the mean of the shared image tokens over pixels, which keys are without, and d is near that of layer 1's:
what is stored is then smaller, and so is its rounding error. s are scores of positions (`position_scores.py`) and a
shift, computed outside, because update_second has no registers left for them. read_keys computes its own.

Each kernel reads keys from memory once and writes them at most once; scores and weights [N, H*T] stay in registers. To
save registers, no kernel adds LayerNorm's bias, and the second does not multiply by its gain:
`network/fp16x3_image_tokens.py` folds them, and d, into the vectors and into s.

With FP16X3, products are fp16x3 (`network/fp16x3_linear.py`), with float32 accuracy. Image tokens and projections then
lie in memory as two float16 parts, so that tiles go straight to the tensor cores. Without it, there are only the high
parts, and accumulation is float32; the weights of layer 2 are still two parts, because rounding them would add more
noise than all other products of the updates. LayerNorm's epsilon is a constant, because a compiled graph would pass it
as float64 and promote what it is added to. m, gain, d, and what scales and shifts s, are loaded in the loops: kept in
registers, they would not leave room for the tiles. Twin: `PlainImageTokens` in `network/image_tokens.py`, with the same
symbols.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.fp16x3 import dot_fp16x3, load_pair, to_fp16_pair
from sam2_amg.kernels.image_tokens import (
    CHANNELS,
    HEAD_CHANNELS,
    HEADS,
    ROWS,
    SLOTS,
    WIDTH,
    load_block_diagonal,
    load_vectors,
    normalise,
    normalise_centred,
    places,
    softmax_over_tokens,
    tile_rows,
)
from sam2_amg.kernels.launch import launcher, require_kernel_device
from sam2_amg.kernels.launch_configs import launch_configs


@triton.jit
def updated_tile(
    before, score, values_high, values_low,
    TOKENS: tl.constexpr, FP16X3: tl.constexpr, TWO_PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Image tokens [BLOCK, CHANNELS] after an update with scores [BLOCK, ROWS], float32, before LayerNorm.

    Without FP16X3, weights are float16, or with TWO_PARTS the sum of two float16.
    """
    high, low = to_fp16_pair(softmax_over_tokens(score, TOKENS, BLOCK))
    if TWO_PARTS and not FP16X3:
        before = tl.dot(low, values_high, before)
    return dot_fp16x3(high, low, values_high, values_low, before, FP16X3)


@triton.jit
def store_pair(pointer, further, place, tile, FP16X3: tl.constexpr):
    """Stores a tile in float16, with FP16X3 also its low parts, `further` numbers on."""
    high, low = to_fp16_pair(tile)
    tl.store(pointer + place, high)
    if FP16X3:
        tl.store(pointer + further + place, low)


@triton.jit
def update_first_kernel(
    keys, centre, queries, heads, values, gain, after, updated, EPS: tl.constexpr,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A program computes one of PARTS stretches of a point's image tokens from the shared image tokens."""
    point = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    first = point * HEADS * TOKENS
    values_high, values_low = to_fp16_pair(load_vectors(values + first * CHANNELS, TOKENS))
    token_key_high, token_key_low = to_fp16_pair(load_block_diagonal(heads + first * WIDTH, TOKENS))
    begin = tl.program_id(1) * (PIXELS // PARTS)
    for start in range(0, PIXELS // PARTS, BLOCK):
        n = begin + start + tl.arange(0, BLOCK)
        high, low = load_pair(queries, PIXELS * HEAD_CHANNELS, places(n, HEAD_CHANNELS), FP16X3)
        score = dot_fp16x3(high, low, token_key_high, token_key_low, tl.zeros((BLOCK, ROWS), tl.float32), FP16X3)
        before = tl.load(keys + places(n, CHANNELS)).to(tl.float32) + tl.load(centre + channel)[None, :]
        tile = updated_tile(before, score, values_high, values_low, TOKENS, FP16X3, False, BLOCK)
        tile = normalise_centred(tile, EPS) * tl.load(gain + channel)[None, :] - tl.load(after + channel)[None, :]
        store_pair(
            updated + point * (2 if FP16X3 else 1) * PIXELS * CHANNELS,
            PIXELS * CHANNELS,
            places(n, CHANNELS),
            tile,
            FP16X3,
        )


@triton.jit
def update_second_kernel(
    keys, scores, steps, shift, folded, values, EPS: tl.constexpr,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A program updates one of PARTS stretches of a point's image tokens, in place."""
    point = tl.program_id(0).to(tl.int64)
    own = keys + point * (2 if FP16X3 else 1) * PIXELS * CHANNELS
    source, real = tile_rows(TOKENS)
    head = tl.arange(0, HEADS)
    first = point * HEADS * TOKENS
    values_high, values_low = to_fp16_pair(load_vectors(values + first * CHANNELS, TOKENS))
    folded_high, folded_low = to_fp16_pair(tl.trans(load_vectors(folded + first * CHANNELS, TOKENS)))
    begin = tl.program_id(1) * (PIXELS // PARTS)
    for start in range(0, PIXELS // PARTS, BLOCK):
        n = begin + start + tl.arange(0, BLOCK)
        high, low = load_pair(own, PIXELS * CHANNELS, places(n, CHANNELS), FP16X3)
        # a head's tokens are adjacent in memory: loaded at once, and then put in the order of a tile's rows
        place = point * (PIXELS * ROWS) + n[:, None, None] * SLOTS + head[None, :, None] * (PIXELS * SLOTS)
        score = tl.load(scores + place + tl.arange(0, SLOTS)[None, None, :])  # [BLOCK, HEADS, SLOTS]
        score = tl.reshape(tl.permute(score, (0, 2, 1)), (BLOCK, ROWS)).to(tl.float32)
        if not FP16X3:
            score *= tl.load(steps + first + source, mask=real, other=0.0)[None, :]
        score = dot_fp16x3(high, low, folded_high, folded_low, score, FP16X3)
        score += tl.load(shift + first + source, mask=real, other=0.0)[None, :]
        before = high.to(tl.float32)
        if FP16X3:
            before += low.to(tl.float32)
        tile = updated_tile(before, score, values_high, values_low, TOKENS, FP16X3, True, BLOCK)
        store_pair(own, PIXELS * CHANNELS, places(n, CHANNELS), normalise(tile, EPS), FP16X3)


@triton.jit
def read_kernel(
    keys, positions, heads, folded, context, most, total,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A program attends to one of PARTS stretches of a point's image tokens, with a running softmax.

    For each row it stores the largest score, the sum of weights and the weighted sum of keys, which `read_keys` merges.
    """
    point = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    source, real = tile_rows(TOKENS)
    first = point * HEADS * TOKENS
    folded_high, folded_low = to_fp16_pair(load_vectors(folded + first * CHANNELS, TOKENS))
    query_high, query_low = to_fp16_pair(tl.trans(load_block_diagonal(heads + first * WIDTH, TOKENS)))
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    sum = tl.zeros((ROWS,), tl.float32)
    read = tl.zeros((ROWS, CHANNELS), tl.float32)
    own = keys + point * (2 if FP16X3 else 1) * PIXELS * CHANNELS
    begin = part * (PIXELS // PARTS)
    for start in range(0, PIXELS // PARTS, BLOCK):
        n = begin + start + tl.arange(0, BLOCK)
        high, low = load_pair(positions, PIXELS * HEAD_CHANNELS, places(n, HEAD_CHANNELS), FP16X3)
        score = tl.zeros((ROWS, BLOCK), tl.float32)
        score = dot_fp16x3(query_high, query_low, tl.trans(high), tl.trans(low), score, FP16X3)
        high, low = load_pair(own, PIXELS * CHANNELS, places(n, CHANNELS), FP16X3)
        score = dot_fp16x3(folded_high, folded_low, tl.trans(high), tl.trans(low), score, FP16X3)  # [ROWS, BLOCK]
        now = tl.maximum(highest, tl.max(score, 1))
        shrink = tl.exp(highest - now)
        weights = tl.exp(score - now[:, None])
        sum = sum * shrink + tl.sum(weights, 1)
        weights_high, weights_low = to_fp16_pair(weights)
        # added on tensor cores, because another sum would not fit into registers; PARTS keeps the loop short
        read = dot_fp16x3(weights_high, weights_low, high, low, read * shrink[:, None], FP16X3)
        highest = now
    out = (point * PARTS + part) * HEADS * TOKENS + source
    tl.store(most + out, highest, mask=real)
    tl.store(total + out, sum, mask=real)
    channel = tl.arange(0, CHANNELS)
    tl.store(context + out[:, None] * CHANNELS + channel[None, :], read, mask=real[:, None])


def _check(pixels: int, channels: int, rows: int) -> None:
    """Raises ValueError for what the kernels are not written for."""
    if channels != int(CHANNELS) or pixels % 512 or rows not in (7 * int(HEADS), 8 * int(HEADS)):
        raise ValueError(f"the kernels take SAM 2's decoder, not {pixels} x {channels} image tokens and {rows} vectors")


def _check_pairs(fp16x3: bool, x: Tensor, *shape: int) -> None:
    """Raises ValueError unless it is float16 [..., N, C], in two parts with `fp16x3`: [..., 2, N, C]."""
    require_kernel_device(x, "keys")
    expected = (*shape[:-2], 2, *shape[-2:]) if fp16x3 else shape
    if not x.is_contiguous() or x.dtype != torch.float16 or x.shape != expected:
        parts = ", in a high and a low part" if fp16x3 else ""
        found = f"{x.dtype} {tuple(x.shape)}"
        raise ValueError(f"image tokens and projections must be contiguous float16 {expected}{parts}, not {found}")


def _check_vectors(fp16x3: bool, *vectors: Tensor) -> None:
    dtype = torch.float32 if fp16x3 else torch.float16
    if not all(x.is_contiguous() and x.dtype == dtype for x in vectors):
        raise ValueError(f"vectors of prompt tokens must be contiguous and {dtype}")


def _check_shape(name: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    if (x.shape, x.dtype) != (shape, dtype) or not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous {shape}, {dtype}, not {tuple(x.shape)}, {x.dtype}")


@triton_op("sam2_amg::update_first", mutates_args={})
def update_first(
    keys: Tensor, centre: Tensor, queries: Tensor, heads: Tensor, values: Tensor,
    gain: Tensor, after: Tensor, eps: float, fp16x3: bool,
) -> Tensor:  # fmt: skip
    """Image tokens after layer 1's update: LayerNorm's output times `gain`, minus `after`, without its bias.

    They are float16 [P, N, C], or with `fp16x3` [P, 2, N, C], high and low parts. `keys` + `centre` [N, C] are shared
    by all points, and so are their projections `queries`, [N, H*D] or [2, N, H*D]. `heads` [P, H, T, D] and `values`
    [P, H*T, C] are per point. They and `keys` are float32 if `fp16x3`, else float16. The vectors `centre`, `gain` and
    `after` are float32 [C].

    The means over channels of `keys`, `centre` and `values` must be zero (`without_mean` in `network/layer_norm.py`).
    LayerNorm would subtract the mean of their sum: to leave it out before does not change the answer.
    """
    points, rows, channels = values.shape
    pixels = len(keys)
    _check(pixels, channels, rows)
    _check_pairs(fp16x3, queries, pixels, int(HEAD_CHANNELS))
    _check_vectors(fp16x3, keys, heads, values)
    for name, vector in (("centre", centre), ("gain", gain), ("after", after)):
        _check_shape(name, vector, (channels,))
    parts = (2, pixels, channels) if fp16x3 else (pixels, channels)
    updated = keys.new_empty(points, *parts, dtype=torch.float16)
    configs = launch_configs(keys.device)
    config = configs.update_first if fp16x3 else configs.fp16_update_first
    launcher(update_first_kernel)[(points, config["PARTS"])](
        keys, centre, queries, heads, values, gain, after, updated,
        EPS=eps, PIXELS=pixels, TOKENS=rows // int(HEADS), FP16X3=fp16x3, **config,
    )  # fmt: skip
    return updated


@triton_op("sam2_amg::update_second", mutates_args={"keys"})
def update_second(
    keys: Tensor, scores: Tensor, steps: Tensor, shift: Tensor, folded: Tensor, values: Tensor, eps: float, fp16x3: bool
) -> None:
    """Layer 2's update of image tokens `keys`, as `update_first` has them, without LayerNorm's gain and bias.

    It works in place, because the tokens take gigabytes. The attention scores are those of `position_scores`, plus
    `shift`, float32 [P, H*T], plus products of `keys` and `folded`. `folded` and `values` are [P, H*T, C]; they are
    float32 if `fp16x3`, else float16, and scores then are float32 or integers.
    """
    points, rows, channels = values.shape
    pixels = keys.shape[-2]
    _check(pixels, channels, rows)
    _check_pairs(fp16x3, keys, points, pixels, channels)
    _check_vectors(fp16x3, folded, values)
    _check_shape("scores", scores, (points, int(HEADS), pixels, int(SLOTS)), torch.float32 if fp16x3 else torch.int16)
    _check_shape("steps", steps, (points, rows))
    _check_shape("shift", shift, (points, rows))
    configs = launch_configs(keys.device)
    config = configs.update_second if fp16x3 else configs.fp16_update_second
    launcher(update_second_kernel)[(points, config["PARTS"])](
        keys, scores, steps, shift, folded, values,
        EPS=eps, PIXELS=pixels, TOKENS=rows // int(HEADS), FP16X3=fp16x3, **config,
    )  # fmt: skip


@triton_op("sam2_amg::read_parts", mutates_args={})
def read_parts(
    keys: Tensor, positions: Tensor, heads: Tensor, folded: Tensor, fp16x3: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Partial results for `read_keys`, float32.

    Weighted sums of keys [P, parts, H*T, C], largest scores [P, parts, H*T] and sums of weights [P, parts, H*T].
    """
    points, rows, channels = folded.shape
    pixels = keys.shape[-2]
    _check(pixels, channels, rows)
    _check_pairs(fp16x3, keys, points, pixels, channels)
    _check_pairs(fp16x3, positions, pixels, int(HEAD_CHANNELS))
    _check_vectors(fp16x3, heads, folded)
    configs = launch_configs(keys.device)
    config = configs.read if fp16x3 else configs.fp16_read
    parts = config["PARTS"]
    context = keys.new_empty(points, parts, rows, channels, dtype=torch.float32)
    most, total = context.new_empty(points, parts, rows), context.new_empty(points, parts, rows)
    launcher(read_kernel)[(points, parts)](
        keys, positions, heads, folded, context, most, total,
        PIXELS=pixels, TOKENS=rows // int(HEADS), FP16X3=fp16x3, **config,
    )  # fmt: skip
    return context, most, total


def read_keys(keys: Tensor, positions: Tensor, heads: Tensor, folded: Tensor, fp16x3: bool) -> Tensor:
    """Attention of prompt tokens to image tokens `keys`, as `update_first` has them: sums of keys, float32 [P, H*T, C].

    Scores are the products of keys and `folded` [P, H*T, C], plus those of `positions`, [N, H*D] or in two parts
    [2, N, H*D], and `heads` [P, H, T, D]. `heads` and `folded` are float32 if `fp16x3`, else float16.
    """
    context, most, total = read_parts(keys, positions, heads, folded, fp16x3)
    share = torch.exp(most - most.amax(1, keepdim=True))  # [P, parts, H*T]
    return (context * share[..., None]).sum(1) / (total * share).sum(1)[..., None]
