"""Image tokens of kept masks -> low-res logits in one kernel. Intermediate results stay out of memory.

The first transposed convolution makes 2 x 2 children of a token, the second 2 x 2 grandchildren of each child, with
LayerNorm, GELU and high-resolution features in between. Logits are products of grandchildren and mask vectors. Operands
of the convolutions and the features are float16, or float32 in two float16 parts; accumulation is float32, and the last
product has float32 accuracy. Launched by `network/fused_upscaling.py`. Twin: `LinearUpscaling` in
`network/upscaling.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sam2_amg.kernels.fp16x3 import dot_fp16x3, load_pair, to_fp16_pair
from sam2_amg.kernels.gelu import gelu
from sam2_amg.kernels.image_tokens import CHANNELS

CHILD = tl.constexpr(64)  # channels of a child
GRANDCHILD = tl.constexpr(32)  # channels of a grandchild
FOUR = tl.constexpr(128)  # channels of the four children of a child, 4 * GRANDCHILD
TWO = tl.constexpr(64)  # of two of them
MASKS = tl.constexpr(3)


@triton.jit
def load_mask_vectors(pointer, HALF: tl.constexpr):
    """Loads a point's mask vectors [GRANDCHILD, MASKS] -> [TWO, 16], for the first or the last two grandchildren.

    Column 4 g + m has mask m's vector in the rows of grandchild g, and zeros elsewhere.
    """
    row = tl.arange(0, TWO) + HALF * TWO
    column = tl.arange(0, 16)
    own = (row // GRANDCHILD)[:, None] == (column // 4)[None, :]
    mask = column % 4
    place = (row % GRANDCHILD)[:, None] * MASKS + mask[None, :]
    return tl.load(pointer + place, mask=own & (mask < MASKS)[None, :], other=0.0)


@triton.jit
def find_rows(points, masks, count, entry, point, column_mask):
    """The output row of each column's mask, -1 if it is not kept. A point's kept masks are adjacent, from `entry`."""
    row = tl.full(column_mask.shape, -1, tl.int64)
    for i in tl.static_range(MASKS):
        there = entry + i < count
        same = tl.load(points + entry + i, mask=there, other=-1) == point
        mask = tl.load(masks + entry + i, mask=there, other=-1)
        row = tl.where(same & (column_mask == mask), entry + i, row)
    return row


# The number of masks differs between photographs. Without specialisation, a new number does not compile a new variant.
@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["points", "masks"])
def upscale_kernel(
    keys, points, masks, count, hyper, children, grandchildren, first, first_low, second, second_low, gain, bias, eps,
    logits, SIDE: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Computes a tile of BLOCK image tokens for all kept masks of a point, in the program of the point's first mask.

    `points` and `masks` are [n]. LayerNorm does not subtract a mean, because over a child's channels that of `first`
    and of `children` is zero. Without FP16X3, the low parts of the weights are not read.
    """
    entry = tl.program_id(0)
    point = tl.load(points + entry)
    if tl.load(points + entry - 1, mask=entry > 0, other=-1) == point:
        return
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel, small = tl.arange(0, CHANNELS), tl.arange(0, CHILD)
    tokens = keys + point * ((2 if FP16X3 else 1) * SIDE * SIDE * CHANNELS) + n[:, None] * CHANNELS
    if not FP16X3:
        tile = tl.load(tokens + channel[None, :])
    vectors = hyper + point * (GRANDCHILD * MASKS)
    first_two_high, first_two_low = to_fp16_pair(load_mask_vectors(vectors, 0))
    last_two_high, last_two_low = to_fp16_pair(load_mask_vectors(vectors, 1))
    gains, biases = tl.load(gain + small), tl.load(bias + small)
    column = tl.arange(0, 16)
    pixel, mask = column // 4, column % 4
    row = find_rows(points, masks, count, entry, point, mask)
    for child in range(4):
        column_of_first = child * CHILD + small[None, :]
        if FP16X3:  # CHILD channels at a time: all of them, in two parts, would take too much shared memory
            x = tl.zeros((BLOCK, CHILD), tl.float32)
            for start in range(0, CHANNELS, CHILD):
                some = start + small
                high, low = load_pair(tokens, SIDE * SIDE * CHANNELS, some[None, :], True)
                cells = some[:, None] * (4 * CHILD) + column_of_first
                x = dot_fp16x3(high, low, tl.load(first + cells), tl.load(first_low + cells), x, True)
        else:
            x = tl.dot(tile, tl.load(first + channel[:, None] * (4 * CHILD) + column_of_first))  # [BLOCK, CHILD]
        x += tl.load(children + (n * 4 + child)[:, None] * CHILD + small[None, :]).to(tl.float32)
        x *= tl.rsqrt(tl.sum(x * x, 1) / CHILD + eps)[:, None]
        x = gelu(x * gains[None, :] + biases[None, :])
        high, low = to_fp16_pair(x)
        found = tl.zeros((BLOCK, 16), tl.float32)
        for half in tl.static_range(2):  # two grandchildren, for four at once take too many registers
            some = half * TWO + tl.arange(0, TWO)
            cells = small[:, None] * FOUR + some[None, :]
            weights = tl.load(second + cells)
            weights_low = tl.load(second_low + cells) if FP16X3 else weights
            y = dot_fp16x3(high, low, weights, weights_low, tl.zeros((BLOCK, TWO), tl.float32), FP16X3)
            y += tl.load(grandchildren + (n * 4 + child)[:, None] * FOUR + some[None, :]).to(tl.float32)
            part_high, part_low = to_fp16_pair(gelu(y))
            if half == 0:
                found = dot_fp16x3(part_high, part_low, first_two_high, first_two_low, found, True)
            else:
                found = dot_fp16x3(part_high, part_low, last_two_high, last_two_low, found, True)
        output_row = 4 * (n // SIDE)[:, None] + 2 * (child // 2) + (pixel // 2)[None, :]
        output_column = 4 * (n % SIDE)[:, None] + 2 * (child % 2) + (pixel % 2)[None, :]
        place = row[None, :] * (16 * SIDE * SIDE) + output_row * (4 * SIDE) + output_column
        tl.store(logits + place, found, mask=(row >= 0)[None, :])
