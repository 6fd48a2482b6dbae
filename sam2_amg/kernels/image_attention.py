"""The image side of the mask decoder in two kernels, products by tensor cores.

    update_keys: keys' = LayerNorm(keys + sum_ht softmax_t(keys . w_ht + s_ht) v_ht), image tokens ask prompt tokens
    read_keys:   context_ht = sum_n softmax_n(keys . u_ht + s_ht) keys, prompt tokens ask image tokens

with keys [N, C] of a point, h heads, t tokens; s are scores that come from elsewhere, those of positions. Only keys
touch memory, once in and once out; scores and weights of [N, H*T] stay in registers. With SPLIT all is float32, every
number the sum of two of float16, as in `split_linear.py`, and products are as exact as float32's; without it all is
float16, and what adds up is float32.
Twins: `PlainImageSide` in `image_side.py`, whose symbols these are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.image_tokens import CHANNELS, HEADS, ROWS, SLOTS, load_vectors, normalise, softmax_over_tokens
from sam2_amg.kernels.launch import launcher, require_kernel_device
from sam2_amg.kernels.split_products import split, split_dot
from sam2_amg.kernels.tuning import launches


@triton.jit
def score_rows(point, points, TOKENS: tl.constexpr):
    """Rows of scores [H, P*T, N] that are a point's, in the order of tiles' rows, and which of them are real."""
    row = tl.arange(0, ROWS)
    token = row % SLOTS
    return ((row // SLOTS) * points + point) * TOKENS + token, token < TOKENS


@triton.jit
def update_kernel(
    keys, scores, folded, values, gain, bias, eps, updated, key_stride, points,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, ASK: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A program updates one of PARTS stretches of a point's image tokens; ASK adds keys . w to their scores."""
    point = tl.program_id(0).to(tl.int64)
    rows, real = score_rows(point, points, TOKENS)
    channel = tl.arange(0, CHANNELS)
    first = point * HEADS * TOKENS * CHANNELS
    values_high, values_low = split(load_vectors(values + first, TOKENS))
    if ASK:
        folded_high, folded_low = split(tl.trans(load_vectors(folded + first, TOKENS)))
    gains, biases = tl.load(gain + channel), tl.load(bias + channel)
    begin = tl.program_id(1) * (PIXELS // PARTS)
    for start in range(0, PIXELS // PARTS, BLOCK):
        n = begin + start + tl.arange(0, BLOCK)
        place = n[:, None] * CHANNELS + channel[None, :]
        before = tl.load(keys + point * key_stride + place).to(tl.float32)  # [BLOCK, CHANNELS]
        score = tl.load(scores + rows[None, :] * PIXELS + n[:, None], mask=real[None, :], other=0.0).to(tl.float32)
        if ASK:
            high, low = split(before)
            score = split_dot(high, low, folded_high, folded_low, score, SPLIT)
        high, low = split(softmax_over_tokens(score, TOKENS, BLOCK))  # [BLOCK, ROWS]
        after = normalise(split_dot(high, low, values_high, values_low, before, SPLIT), eps)
        tl.store(updated + point * PIXELS * CHANNELS + place, after * gains[None, :] + biases[None, :])


@triton.jit
def read_kernel(
    keys, scores, folded, context, most, total, points,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A program reads one of PARTS stretches of a point's image tokens, with a running softmax.

    It stores what `read_keys` joins: the largest score of each row, the sum of weights, and the weighted sum of keys.
    """
    point = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    rows, real = score_rows(point, points, TOKENS)
    channel = tl.arange(0, CHANNELS)
    folded_high, folded_low = split(load_vectors(folded + point * HEADS * TOKENS * CHANNELS, TOKENS))
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    sum = tl.zeros((ROWS,), tl.float32)
    read = tl.zeros((ROWS, CHANNELS), tl.float32)
    begin = part * (PIXELS // PARTS)
    for start in range(0, PIXELS // PARTS, BLOCK):
        n = begin + start + tl.arange(0, BLOCK)
        high, low = split(tl.load(keys + point * PIXELS * CHANNELS + n[:, None] * CHANNELS + channel[None, :]))
        score = tl.load(scores + rows[:, None] * PIXELS + n[None, :], mask=real[:, None], other=0.0).to(tl.float32)
        score = split_dot(folded_high, folded_low, tl.trans(high), tl.trans(low), score, SPLIT)  # [ROWS, BLOCK]
        now = tl.maximum(highest, tl.max(score, 1))
        shrink = tl.exp(highest - now)
        weights = tl.exp(score - now[:, None])
        sum = sum * shrink + tl.sum(weights, 1)
        weights_high, weights_low = split(weights)
        read = split_dot(weights_high, weights_low, high, low, read * shrink[:, None], SPLIT)
        highest = now
    row = tl.arange(0, ROWS)
    out = (point * PARTS + part) * HEADS * TOKENS + (row // SLOTS) * TOKENS + row % SLOTS
    tl.store(most + out, highest, mask=real)
    tl.store(total + out, sum, mask=real)
    tl.store(context + out[:, None] * CHANNELS + channel[None, :], read, mask=real[:, None])


def _check(split: bool, keys: Tensor, scores: Tensor, folded: Tensor, *others: Tensor) -> None:
    """Raises ValueError for what the kernels are not written for."""
    require_kernel_device(keys, "keys")
    pixels, channels = keys.shape[-2:]
    rows = folded.shape[1]
    if channels != int(CHANNELS) or pixels % 512 or rows not in (7 * int(HEADS), 8 * int(HEADS)):
        raise ValueError(f"written for SAM 2's decoder, not for {pixels} x {channels} image tokens and {rows} vectors")
    dtype = torch.float32 if split else torch.float16
    if not all(x.is_contiguous() and x.dtype == dtype for x in (keys, scores, folded, *others)):
        raise ValueError(f"keys, scores and vectors must be contiguous and {dtype}")
    if scores.shape != (expected := (int(HEADS), len(folded) * rows // int(HEADS), pixels)):
        raise ValueError(f"scores must be {expected}, not {tuple(scores.shape)}")


@triton_op("sam2_amg::update_keys", mutates_args={})
def update_keys(
    keys: Tensor,
    scores: Tensor,
    folded: Tensor,
    values: Tensor,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    ask: bool,
    split: bool,
) -> Tensor:
    """Image tokens [P, N, C] after an update; `keys` are [P, N, C], or [N, C] where all points have the same.

    `scores` are [H, P*T, N], to which `ask` adds the products of keys and `folded`; this and `values` are
    [P, H*T, C]; `gain` and `bias`, [C], are LayerNorm's, float32. The others and the answer are float32 where products
    are to `split`, float16 where not.
    """
    _check(split, keys, scores, folded, values)
    points, rows, _ = values.shape
    pixels, channels = keys.shape[-2:]
    updated = keys.new_empty(points, pixels, channels)
    tuned = launches(keys.device)
    launch = tuned.update if split else tuned.half_update
    launcher(update_kernel)[(points, launch["PARTS"])](
        keys, scores, folded, values, gain, bias, eps, updated, pixels * channels if keys.ndim == 3 else 0, points,
        PIXELS=pixels, TOKENS=rows // int(HEADS), ASK=ask, SPLIT=split, **launch,
    )  # fmt: skip
    return updated


@triton_op("sam2_amg::read_parts", mutates_args={})
def read_parts(keys: Tensor, scores: Tensor, folded: Tensor, split: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What `read_keys` joins: sums [P, parts, H*T, C], largest scores and weights [P, parts, H*T], float32."""
    _check(split, keys, scores, folded)
    points, rows, channels = folded.shape
    tuned = launches(keys.device)
    launch = tuned.read if split else tuned.half_read
    parts = launch["PARTS"]
    context = keys.new_empty(points, parts, rows, channels, dtype=torch.float32)
    most, total = context.new_empty(points, parts, rows), context.new_empty(points, parts, rows)
    launcher(read_kernel)[(points, parts)](
        keys, scores, folded, context, most, total, points,
        PIXELS=keys.shape[1], TOKENS=rows // int(HEADS), SPLIT=split, **launch,
    )  # fmt: skip
    return context, most, total


def read_keys(keys: Tensor, scores: Tensor, folded: Tensor, split: bool) -> Tensor:
    """Attention of prompt tokens to image tokens `keys` [P, N, C]: weighted sums of keys, [P, H*T, C].

    `scores` are [H, P*T, N], to which products of keys and `folded`, [P, H*T, C], are added. All float32 where products
    are to `split`, float16 where not; the answer is float32.
    """
    context, most, total = read_parts(keys, scores, folded, split)
    share = torch.exp(most - most.amax(1, keepdim=True))  # [P, parts, H*T]
    return (context * share[..., None]).sum(1) / (total * share).sum(1)[..., None]
