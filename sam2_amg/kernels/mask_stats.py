"""Low-res logits -> pixel counts above three thresholds, and boxes, at the photograph's size. Stores no masks.

A program takes a tile of input pixels at a time. If they are all on the same side of each threshold, as nearly
everywhere in a mask, so is every output pixel between them, and all are counted at once. Otherwise a lane handles an
output column and goes down its rows. It keeps two input rows, interpolated at its column, in registers, so an output
pixel needs no load, only a mix of the two and the comparisons. If both input rows are on the same side of each
threshold in all lanes, all output rows between them are counted at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sam2_amg.kernels.bilinear import bounds, first_of, mix_columns, mix_rows, rows_until, scales_of, source_of
from sam2_amg.kernels.launch import require_contiguous, require_kernel_device
from sam2_amg.postprocess.mask_stats import MaskStats

_BLOCK = 64  # columns per program, one lane each
_ROWS = 256  # maximum rows per program: enough to amortise its start, few enough that ten masks fill a GPU
_MASKS = 128  # masks per program of `box_kernel`
_LARGEST = tl.constexpr(3.4028234663852886e38)  # of float32
_TILE_ROWS = tl.constexpr(8)  # input pixels that are looked at before their interpolation
_TILE_COLUMNS = tl.constexpr(32)  # enough for _BLOCK columns of a photograph that is 550 or more pixels wide


@triton.jit
def widen_box(box, x, top, bottom, width, height):
    """Extends a box by columns x with rows from `top` to before `bottom` (0 for no rows).

    The box holds width - x0, height - y0, x1 + 1, y1 + 1, so that all four are maxima.
    """
    tl.atomic_max(box, tl.max(tl.where(bottom > 0, width - x, 0)))
    tl.atomic_max(box + 1, tl.max(height - top))
    tl.atomic_max(box + 2, tl.max(tl.where(bottom > 0, x + 1, 0)))
    tl.atomic_max(box + 3, tl.max(bottom))


@triton.jit
def on_one_side(least, most, high, middle, low):
    """Whether numbers between these bounds are on one side of each threshold."""
    return ((least > high) | (most <= high)) & ((least > middle) | (most <= middle)) & ((least > low) | (most <= low))


@triton.jit
def count_rows(lanes, value, high, middle, low, y, until, above_high, above_middle, above_low, top, bottom):
    """The last five, after output rows from `y` to before `until`, on the side of each threshold that `value` is on."""
    inside = lanes & (value > middle)
    return (
        above_high + tl.where(lanes & (value > high), until - y, 0),
        above_middle + tl.where(inside, until - y, 0),
        above_low + tl.where(lanes & (value > low), until - y, 0),
        tl.where(inside, tl.minimum(top, y), top),
        tl.where(inside, until, bottom),
    )


@triton.jit
def tile_bounds(logits, row, column, last_column, h, w):
    """Bounds of what any mix of a tile's input pixels is, rounding included: least and most.

    The tile begins at `row` and `column`, and ends before _TILE_ROWS further rows, and with `last_column`. The least is
    infinite below and the most above where it has more columns than _TILE_COLUMNS, or a number that is not finite.
    """
    rows = tl.minimum(row + tl.arange(0, _TILE_ROWS), h - 1)
    columns = tl.minimum(column + tl.arange(0, _TILE_COLUMNS), last_column)
    tile = tl.load(logits + rows[:, None] * w + columns[None, :]).to(tl.float32)
    fine = tl.min(tl.min((tl.abs(tile) <= _LARGEST).to(tl.int32), 1), 0) > 0  # comparisons with NaN are false
    least, most = bounds(tl.min(tl.min(tile, 1), 0), tl.max(tl.max(tile, 1), 0))
    known = fine & (last_column < column + _TILE_COLUMNS)
    return tl.where(known, least, float("-inf")), tl.where(known, most, float("inf"))


# Sizes differ between photographs. Without specialisation on them, a new size does not compile a new variant.
@triton.jit(do_not_specialize=["h", "w", "height", "width"], do_not_specialize_on_alignment=["logits", "found"])
def mask_stats_kernel(
    logits, found, h, w, height, width, scale_y, scale_x, high, middle, low, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Adds a tile of a mask to its row of `found`, int32 [n, 8], which starts as zeros.

    Its columns: counts above high, middle and low; 1 if a logit is not finite; width - x0, height - y0, x1 + 1, y1 + 1.
    """
    mask = tl.program_id(0)
    logits += mask.to(tl.int64) * h * w
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lanes = x < width
    left, right, weight_x = source_of(x, scale_x, w)
    begin = tl.program_id(2) * ROWS
    end = tl.minimum(begin + ROWS, height)

    above_high = tl.zeros((BLOCK,), tl.int32)
    above_middle = tl.zeros((BLOCK,), tl.int32)
    above_low = tl.zeros((BLOCK,), tl.int32)
    not_finite = tl.zeros((BLOCK,), tl.int32)
    top = tl.zeros((BLOCK,), tl.int32) + height  # first row above middle
    bottom = tl.zeros((BLOCK,), tl.int32)  # one past the last
    column = first_of(tl.program_id(1) * BLOCK, scale_x, w)
    last_column = tl.minimum(first_of(tl.minimum((tl.program_id(1) + 1) * BLOCK, width) - 1, scale_x, w) + 1, w - 1)
    y = begin
    while y < end:  # not range(): with NumPy 2.4, Triton 3.6's interpreter does not accept a tensor as its end
        row = first_of(y, scale_y, h)
        tile_end = rows_until(row + _TILE_ROWS - 1, scale_y, h, y, end)
        tile_least, tile_most = tile_bounds(logits, row, column, last_column, h, w)
        if on_one_side(tile_least, tile_most, high, middle, low):
            every = tl.zeros((BLOCK,), tl.float32) + tile_least
            above_high, above_middle, above_low, top, bottom = count_rows(
                lanes, every, high, middle, low, y, tile_end, above_high, above_middle, above_low, top, bottom
            )
            y = tile_end
        while y < tile_end:
            first, second, weight_y = source_of(y, scale_y, h)
            until = rows_until(first + 1, scale_y, h, y, tile_end)
            upper = mix_columns(logits + first * w, left, right, weight_x, lanes)
            lower = mix_columns(logits + second * w, left, right, weight_x, lanes)
            # comparisons with NaN are false, and infinity is above the largest number
            fine = (tl.abs(upper) <= _LARGEST) & (tl.abs(lower) <= _LARGEST)
            not_finite |= (lanes & (fine == 0)).to(tl.int32)
            least, most = bounds(upper, lower)
            undecided = lanes & (on_one_side(least, most, high, middle, low) == 0)
            if tl.max(undecided.to(tl.int32)) == 0:
                above_high, above_middle, above_low, top, bottom = count_rows(
                    lanes, least, high, middle, low, y, until, above_high, above_middle, above_low, top, bottom
                )
                y = until
            while y < until:
                first, second, weight_y = source_of(y, scale_y, h)  # the same rows
                value = mix_rows(upper, lower, weight_y)
                above_high, above_middle, above_low, top, bottom = count_rows(
                    lanes, value, high, middle, low, y, y + 1, above_high, above_middle, above_low, top, bottom
                )
                y += 1

    found += mask * 8
    tl.atomic_add(found, tl.sum(above_high))
    tl.atomic_add(found + 1, tl.sum(above_middle))
    tl.atomic_add(found + 2, tl.sum(above_low))
    tl.atomic_max(found + 3, tl.max(not_finite))
    widen_box(found + 4, x, top, bottom, width, height)


@triton.jit(do_not_specialize=["n", "height", "width"], do_not_specialize_on_alignment=["found", "boxes"])
def box_kernel(found, boxes, n, height, width, BLOCK: tl.constexpr):
    """Boxes of masks, int64 [n, 4], from `found` of `mask_stats_kernel`."""
    mask = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = mask < n
    found += mask * 8
    boxes += mask * 4
    seen = tl.load(found + 1, mask=real, other=0) > 0
    x0, y0 = width - tl.load(found + 4, mask=real, other=0), height - tl.load(found + 5, mask=real, other=0)
    x1, y1 = tl.load(found + 6, mask=real, other=0) - 1, tl.load(found + 7, mask=real, other=0) - 1
    tl.store(boxes, tl.where(seen, x0, 0).to(tl.int64), mask=real)
    tl.store(boxes + 1, tl.where(seen, y0, 0).to(tl.int64), mask=real)
    tl.store(boxes + 2, tl.where(seen, x1, 0).to(tl.int64), mask=real)
    tl.store(boxes + 3, tl.where(seen, y1, 0).to(tl.int64), mask=real)


def mask_stats(logits: Tensor, size: tuple[int, int], threshold: float, offset: float) -> MaskStats:
    """Pixel counts and boxes of masks at `size` (height, width) from low-res logits [n, h, w], contiguous.

    Logits are float32, float16 or bfloat16. Allocates nothing of the photograph's size. Counts are exact except for
    pixels whose logit is within float32 rounding of a threshold. Raises ValueError for other devices. Twin:
    `postprocess.mask_stats.mask_stats`.
    """
    require_kernel_device(logits, "logits")
    require_contiguous(logits, "logits", ndim=3)
    n, h, w = logits.shape
    height, width = size
    found = torch.zeros(n, 8, dtype=torch.int32, device=logits.device)
    boxes = torch.empty(n, 4, dtype=torch.int64, device=logits.device)
    if n > 0:
        scale_y, scale_x = scales_of(logits, size)
        grid = (n, triton.cdiv(width, _BLOCK), triton.cdiv(height, _ROWS))
        mask_stats_kernel[grid](
            logits, found, h, w, height, width, scale_y, scale_x,
            float(threshold + offset), float(threshold), float(threshold - offset),
            ROWS=_ROWS, BLOCK=_BLOCK, num_warps=1,
        )  # fmt: skip
        box_kernel[(triton.cdiv(n, _MASKS),)](found, boxes, n, height, width, BLOCK=_MASKS)
    return MaskStats(found[:, 0], found[:, 1], found[:, 2], boxes, found[:, 3].any())
