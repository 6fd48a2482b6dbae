"""Triton functions for tiles of image tokens: loading them and a point's vectors, softmax over tokens, LayerNorm.

The products per head of 16 channels, q_h . k_ht (see `network/folded_attention.py`), are computed as one product with a
block-diagonal matrix of the 64 token vectors. LayerNorm has no gain and bias here; callers of the kernels fold both
into the vectors.
"""

from __future__ import annotations

import triton
import triton.language as tl

HEADS = tl.constexpr(8)
SLOTS = tl.constexpr(8)  # rows per head in a tile: T tokens, and padding
WIDTH = tl.constexpr(16)  # channels per head
CHANNELS = tl.constexpr(256)
ROWS = tl.constexpr(64)  # HEADS * SLOTS
HEAD_CHANNELS = tl.constexpr(128)  # HEADS * WIDTH
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def tile_rows(tokens: tl.constexpr):
    """The index of each tile row in a point's H*T vectors, and whether it is a token, not padding: [ROWS], [ROWS].

    Rows are ordered by token, then head. One thread then holds all tokens of a head in registers, so a softmax over
    them needs no communication.
    """
    row = tl.arange(0, ROWS)
    token = row // HEADS
    return (row % HEADS) * tokens + token, token < tokens


@triton.jit
def load_vectors(pointer, tokens: tl.constexpr):
    """Loads a point's folded vectors [H*T, C] -> [ROWS, CHANNELS], zeros in padding."""
    source, real = tile_rows(tokens)
    return tl.load(
        pointer + source[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :], mask=real[:, None], other=0.0
    )


@triton.jit
def load_block_diagonal(pointer, tokens: tl.constexpr):
    """Loads a point's vectors by head [H, T, D] -> block-diagonal [HEAD_CHANNELS, ROWS]."""
    channel = tl.arange(0, HEAD_CHANNELS)
    source, real = tile_rows(tokens)
    own = (channel // WIDTH)[:, None] == (tl.arange(0, ROWS) % HEADS)[None, :]
    offsets = source[None, :] * WIDTH + (channel % WIDTH)[:, None]
    return tl.load(pointer + offsets, mask=own & real[None, :], other=0.0)


@triton.jit
def softmax_over_tokens(scores, tokens: tl.constexpr, BLOCK: tl.constexpr):
    """Softmax over the first `tokens` rows of each head: [BLOCK, ROWS] -> [BLOCK, ROWS]."""
    grouped = tl.reshape(scores, (BLOCK, SLOTS, HEADS))
    if tokens < SLOTS:
        real = (tl.arange(0, SLOTS) < tokens)[None, :, None]
        grouped = tl.where(real, grouped, float("-inf"))
    grouped = tl.exp2((grouped - tl.max(grouped, 1)[:, None, :]) * LOG2_E)
    grouped = grouped * (1.0 / tl.sum(grouped, 1))[:, None, :]
    return tl.reshape(grouped, (BLOCK, ROWS))


@triton.jit
def normalise(x, eps):
    """LayerNorm of rows [BLOCK, CHANNELS] without gain and bias: (x - mean) / sqrt(variance + eps).

    The variance is the mean square less the square of the mean: its error is 2^-22 of the mean square or so.
    """
    mean = tl.sum(x, 1) / CHANNELS
    scale = tl.rsqrt(tl.maximum(tl.sum(x * x, 1) / CHANNELS - mean * mean, 0.0) + eps)
    return x * scale[:, None] - (mean * scale)[:, None]


@triton.jit
def normalise_centred(x, eps):
    """The same of rows whose mean is zero."""
    return x * tl.rsqrt(tl.sum(x * x, 1) / CHANNELS + eps)[:, None]


@triton.jit
def places(n, WIDE: tl.constexpr):
    """Where rows `n` of a row-major matrix of WIDE columns are: [len(n), WIDE]"""
    return n[:, None] * WIDE + tl.arange(0, WIDE)[None, :]
