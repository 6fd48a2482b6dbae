"""The image side of the mask decoder: image tokens recomputed tile by tile, so that no point's are ever stored.

Each program takes a point and walks over tiles of BLOCK image tokens. What a layer does to an image token depends on
that token and on the point's tokens alone (keys K, positions E, heads h, tokens t; see `folded_attention.py`):

    keys1 = LayerNorm(K + sum_ht softmax_t(q_h . k_ht) v_ht)
    keys2 = LayerNorm(keys1 + sum_ht softmax_t(keys1 . w_ht + e_h . k_ht) v_ht)

and what the tokens read is a softmax over image tokens, which runs along with the walk:

    context_ht = sum_n softmax_n(keys . u_ht + e_h . q_ht) keys

So `first` makes keys1 and reads it, and `second` makes keys1 again, keys2 of it, and reads that. Products take operands
of 16 bits (or float32) and add up in float32; softmax and LayerNorm are float32. The sums over heads of 16 channels,
q_h . k_ht, are one product with a block-diagonal matrix of the 64 token vectors.
"""

from __future__ import annotations

import triton
import triton.language as tl

HEADS = tl.constexpr(8)
SLOTS = tl.constexpr(8)  # tokens a head in a tile: T of them, and padding
WIDTH = tl.constexpr(16)  # channels a head
CHANNELS = tl.constexpr(256)
ROWS = tl.constexpr(64)  # HEADS * SLOTS
HEAD_CHANNELS = tl.constexpr(128)  # HEADS * WIDTH


@triton.jit
def load_vectors(pointer, tokens: tl.constexpr):
    """A point's folded vectors [H*T, C] -> [ROWS, CHANNELS], zeros in padding."""
    row = tl.arange(0, ROWS)
    token = row % SLOTS
    source = (row // SLOTS) * tokens + token
    offsets = source[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return tl.load(pointer + offsets, mask=(token < tokens)[:, None], other=0.0)


@triton.jit
def load_block_diagonal(pointer, tokens: tl.constexpr):
    """A point's vectors by head [H, T, D] -> [HEAD_CHANNELS, ROWS], a column a token and head, zeros elsewhere."""
    channel = tl.arange(0, HEAD_CHANNELS)
    row = tl.arange(0, ROWS)
    token = row % SLOTS
    own = (channel // WIDTH)[:, None] == (row // SLOTS)[None, :]
    offsets = ((row // SLOTS) * tokens + token)[None, :] * WIDTH + (channel % WIDTH)[:, None]
    return tl.load(pointer + offsets, mask=own & (token < tokens)[None, :], other=0.0)


@triton.jit
def softmax_over_tokens(scores, tokens: tl.constexpr, BLOCK: tl.constexpr):
    """[BLOCK, ROWS] -> the same, each group of SLOTS columns a softmax over its first `tokens`."""
    grouped = tl.reshape(scores, (BLOCK, HEADS, SLOTS))
    real = (tl.arange(0, SLOTS) < tokens)[None, None, :]
    grouped = tl.where(real, grouped, float("-inf"))
    grouped = tl.exp(grouped - tl.max(grouped, 2)[:, :, None])
    grouped = grouped / tl.sum(grouped, 2)[:, :, None]
    return tl.reshape(grouped, (BLOCK, ROWS))


@triton.jit
def normalise(x, eps):
    """LayerNorm of rows [BLOCK, CHANNELS] without gain and bias: (x - mean) / sqrt(variance + eps)."""
    centred = x - (tl.sum(x, 1) / CHANNELS)[:, None]
    variance = tl.sum(centred * centred, 1) / CHANNELS
    return centred * tl.rsqrt(variance + eps)[:, None]


@triton.jit
def load_rows(pointer, n, WIDE: tl.constexpr):
    """Rows `n` of a row-major matrix WIDE wide."""
    return tl.load(pointer + n[:, None] * WIDE + tl.arange(0, WIDE)[None, :])


@triton.jit
def make_first_keys(
    keys, queries, n, told, values, eps, tokens: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr
):
    """Tile of keys1 before gain and bias, float32 [BLOCK, CHANNELS]."""
    scores = tl.dot(load_rows(queries, n, HEAD_CHANNELS), told, input_precision=PRECISION)  # [BLOCK, ROWS]
    weights = softmax_over_tokens(scores, tokens, BLOCK).to(values.dtype)
    before = load_rows(keys, n, CHANNELS).to(tl.float32)
    return normalise(tl.dot(weights, values, before, input_precision=PRECISION), eps)


@triton.jit
def make_second_keys(
    first,
    gain,
    positions,
    n,
    folded,
    told,
    values,
    eps,
    tokens: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tile of keys2, float32 [BLOCK, CHANNELS], from one of keys1."""
    scores = tl.dot(load_rows(positions, n, HEAD_CHANNELS), told, input_precision=PRECISION)
    scores = tl.dot(first.to(folded.dtype), tl.trans(folded), scores, input_precision=PRECISION)  # [BLOCK, ROWS]
    weights = softmax_over_tokens(scores, tokens, BLOCK).to(values.dtype)
    return normalise(tl.dot(weights, values, first * gain[None, :], input_precision=PRECISION), eps)


@triton.jit
def read_tile(tile, positions, n, folded, asking, most, total, context, PRECISION: tl.constexpr):
    """One step of the running softmax over image tokens: `tile` [BLOCK, CHANNELS] in the type of products.

    `most` and `total` are [ROWS], `context` is [ROWS, CHANNELS], all float32.
    """
    scores = tl.dot(load_rows(positions, n, HEAD_CHANNELS), asking, input_precision=PRECISION)
    scores = tl.dot(tile, tl.trans(folded), scores, input_precision=PRECISION)  # [BLOCK, ROWS]
    now = tl.maximum(most, tl.max(scores, 0))
    shrink = tl.exp(most - now)
    weights = tl.exp(scores - now[None, :])
    total = total * shrink + tl.sum(weights, 0)
    context = context * shrink[:, None]
    context = tl.dot(tl.trans(weights).to(tile.dtype), tile, context, input_precision=PRECISION)
    return now, total, context


@triton.jit
def store_context(pointer, context, total, tokens: tl.constexpr):
    """[ROWS, CHANNELS] without padding -> [H*T, C]."""
    row = tl.arange(0, ROWS)
    token = row % SLOTS
    offsets = ((row // SLOTS) * tokens + token)[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    tl.store(pointer + offsets, context / total[:, None], mask=(token < tokens)[:, None])


@triton.jit
def first_kernel(
    keys, queries, told, values, eps, positions, asking, folded, context,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Layer 1's update and layer 2's reading: context [P, H*T, C] float32, a program a point."""
    point = tl.program_id(0).to(tl.int64)
    heads, rows = point * HEADS * TOKENS * WIDTH, point * HEADS * TOKENS * CHANNELS
    told_1 = load_block_diagonal(told + heads, TOKENS)
    values_1 = load_vectors(values + rows, TOKENS)
    asking_2 = load_block_diagonal(asking + heads, TOKENS)
    folded_2 = load_vectors(folded + rows, TOKENS)
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    read = tl.zeros((ROWS, CHANNELS), tl.float32)
    start = 0
    while start < PIXELS:
        n = start + tl.arange(0, BLOCK)
        first = make_first_keys(keys, queries, n, told_1, values_1, eps, TOKENS, PRECISION=PRECISION, BLOCK=BLOCK)
        tile = first.to(values_1.dtype)
        most, total, read = read_tile(tile, positions, n, folded_2, asking_2, most, total, read, PRECISION=PRECISION)
        start += BLOCK
    store_context(context + rows, read, total, TOKENS)
