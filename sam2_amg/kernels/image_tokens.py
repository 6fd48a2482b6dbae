"""Tiles of image tokens, in Triton: how they are recomputed for a point, and how the point's tokens read them.

What a layer does to an image token depends on
that token and on the point's tokens alone (keys K, positions E, heads h, tokens t; see `folded_attention.py`):

    keys1 = LayerNorm(K + sum_ht softmax_t(q_h . k_ht) v_ht)
    keys2 = LayerNorm(keys1 + sum_ht softmax_t(keys1 . w_ht + e_h . k_ht) v_ht)

and what the tokens read is a softmax over image tokens, which runs along with the walk:

    context_ht = sum_n softmax_n(keys . u_ht + e_h . q_ht) keys

Products take operands
of 16 bits (or float32) and add up in float32; softmax and LayerNorm are float32. The sums over heads of 16 channels,
q_h . k_ht, are one product with a block-diagonal matrix of the 64 token vectors. Gains and biases of LayerNorm are no
business of a tile: `image_side.py` folds them into the token vectors.
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
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_rows(tokens: tl.constexpr):
    """Which of a point's H*T vectors each row of a tile is, and whether it is one: [ROWS], [ROWS].

    Rows go token by token, all heads of one side by side. The tokens of a head then lie in registers of one thread,
    and a softmax over them asks no other.
    """
    row = tl.arange(0, ROWS)
    token = row // HEADS
    return (row % HEADS) * tokens + token, token < tokens


@triton.jit
def load_vectors(pointer, tokens: tl.constexpr):
    """A point's folded vectors [H*T, C] -> [ROWS, CHANNELS], zeros in padding."""
    source, real = tile_rows(tokens)
    return tl.load(
        pointer + source[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :], mask=real[:, None], other=0.0
    )


@triton.jit
def load_block_diagonal(pointer, tokens: tl.constexpr):
    """A point's vectors by head [H, T, D] -> [HEAD_CHANNELS, ROWS], a column a token and head, zeros elsewhere."""
    channel = tl.arange(0, HEAD_CHANNELS)
    source, real = tile_rows(tokens)
    own = (channel // WIDTH)[:, None] == (tl.arange(0, ROWS) % HEADS)[None, :]
    offsets = source[None, :] * WIDTH + (channel % WIDTH)[:, None]
    return tl.load(pointer + offsets, mask=own & real[None, :], other=0.0)


@triton.jit
def load_point(heads, rows, point, tokens: tl.constexpr):
    """A point's vectors of two tensors, by head [P, H, T, D] and folded [P, H*T, C], as the loaders above make them."""
    first = point * HEADS * tokens
    return load_block_diagonal(heads + first * WIDTH, tokens), load_vectors(rows + first * CHANNELS, tokens)


@triton.jit
def softmax_over_tokens(scores, tokens: tl.constexpr, BLOCK: tl.constexpr):
    """[BLOCK, ROWS] -> the same, a softmax over the first `tokens` of each head."""
    grouped = tl.reshape(scores, (BLOCK, SLOTS, HEADS))
    if tokens < SLOTS:
        real = (tl.arange(0, SLOTS) < tokens)[None, :, None]
        grouped = tl.where(real, grouped, float("-inf"))
    grouped = tl.exp2((grouped - tl.max(grouped, 1)[:, None, :]) * LOG2_E)
    grouped = grouped * (1.0 / tl.sum(grouped, 1))[:, None, :]
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
def add_values(before, weights, values, PRECISION: tl.constexpr):
    """before + weights @ values, float32 [BLOCK, CHANNELS].

    Weights of a head add up to one, and rounding them to 16 bits is what moves the result most: so what that leaves
    over is multiplied, too.
    """
    rounded = weights.to(values.dtype)
    rest = (weights - rounded.to(tl.float32)).to(values.dtype)
    before = tl.dot(rounded, values, before, input_precision=PRECISION)
    return tl.dot(rest, values, before, input_precision=PRECISION)


@triton.jit
def make_first_keys(
    keys, queries, n, told, values, eps, tokens: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr
):
    """Tile of keys1 before gain and bias, float32 [BLOCK, CHANNELS]."""
    scores = tl.dot(load_rows(queries, n, HEAD_CHANNELS), told, input_precision=PRECISION)  # [BLOCK, ROWS]
    weights = softmax_over_tokens(scores, tokens, BLOCK)
    before = load_rows(keys, n, CHANNELS).to(tl.float32)
    return normalise(add_values(before, weights, values, PRECISION), eps)


@triton.jit
def make_second_keys(
    first,
    gain,
    positions,
    n,
    folded,
    told,
    shift,
    values,
    eps,
    tokens: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Tile of keys2 before gain and bias, float32 [BLOCK, CHANNELS], from one of keys1 before its own."""
    scores = tl.dot(load_rows(positions, n, HEAD_CHANNELS), told, input_precision=PRECISION)
    scores = tl.dot(first.to(folded.dtype), tl.trans(folded), scores, input_precision=PRECISION)  # [BLOCK, ROWS]
    weights = softmax_over_tokens(scores + shift[None, :], tokens, BLOCK)
    return normalise(add_values(first * gain[None, :], weights, values, PRECISION), eps)


@triton.jit
def begin_reading():
    """The running softmax before the first tile, see `read_tile`: most, total, context."""
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    return most, tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, CHANNELS), tl.float32)


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
    source, real = tile_rows(tokens)
    offsets = source[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    tl.store(pointer + offsets, context / total[:, None], mask=real[:, None])
