"""Low-res logits -> column-major run boundaries at the photograph's size. Stores no masks.

A lane handles a stretch of a column of the crop, and goes down it as in `mask_stats.py`. The first pass counts the
boundaries of each stretch. A cumulative sum of the counts gives each stretch's place in the output. The
second pass writes the boundaries. Only these are copied to the host, where their differences are the run lengths.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sam2_amg.kernels.bilinear import bounds, mix_columns, mix_rows, rows_until, scales_of, source_of
from sam2_amg.kernels.host_copy import begin_copy
from sam2_amg.kernels.launch import require_contiguous, require_kernel_device
from sam2_amg.postprocess.crops import Crop
from sam2_amg.postprocess.rle import RunBoundaries

_BLOCK = 64  # columns per program, one lane each
# Where there are many masks, a column is one stretch. Where there are few, it is divided into stretches of about _ROWS
# rows, which run at the same time. _PROGRAMS fill a GPU: more would take memory, and no less time.
_ROWS, _PROGRAMS = 256, 4096
_SIZES = ["h", "w", "crop_height", "crop_width", "x0", "y0", "height", "width", "rows"]


@triton.jit
def _value_at(logits, y, left, right, weight_x, lanes, scale_y, h, w):
    first, second, weight_y = source_of(y, scale_y, h)
    upper = mix_columns(logits + first * w, left, right, weight_x, lanes)
    lower = mix_columns(logits + second * w, left, right, weight_x, lanes)
    return mix_rows(upper, lower, weight_y)


# Sizes differ between photographs. Without specialisation on them, a new size does not compile a new variant.
@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["logits", "counts", "ends", "boundaries"])
def boundaries_kernel(
    logits, counts, ends, boundaries, h, w, crop_height, crop_width, scale_y, scale_x, threshold,
    x0, y0, height, width, rows, WRITE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts the boundaries of each stretch of `rows` rows into `counts`, int32 [n, crop_width, stretches].

    With WRITE, writes them instead. A boundary is the position x * height + y of a pixel that differs from the one
    before it in column-major order.
    """
    mask = tl.program_id(0)
    logits += mask.to(tl.int64) * h * w
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    lanes = x < crop_width
    left, right, weight_x = source_of(x, scale_x, w)
    begin = tl.program_id(2) * rows
    stop = tl.minimum(begin + rows, crop_height)
    stretch = (mask.to(tl.int64) * crop_width + x) * tl.num_programs(2) + tl.program_id(2)
    place = tl.zeros((BLOCK,), tl.int64)
    if WRITE:
        place += tl.load(ends + stretch, mask=lanes, other=0) - tl.load(counts + stretch, mask=lanes, other=0)

    # The pixel before is the one above, or for a column's first the last of the previous column. Crops that are not as
    # tall as the photograph have background between columns.
    top = begin == 0
    tall = crop_height == height
    x_before = tl.where(top, tl.maximum(x - 1, 0), x)
    y_before = tl.where(top, crop_height, begin) - 1
    left_before, right_before, weight_before = source_of(x_before, scale_x, w)
    before = _value_at(logits, y_before, left_before, right_before, weight_before, lanes, scale_y, h, w)
    was = (before > threshold) & ((top == 0) | ((x > 0) & tall))

    count = tl.zeros((BLOCK,), tl.int32)
    y = begin
    while y < stop:  # not range(), see mask_stats.py
        first, second, weight_y = source_of(y, scale_y, h)
        until = rows_until(first + 1, scale_y, h, y, stop)
        upper = mix_columns(logits + first * w, left, right, weight_x, lanes)
        lower = mix_columns(logits + second * w, left, right, weight_x, lanes)
        least, most = bounds(upper, lower)
        decided = (least > threshold) | (most <= threshold)
        same = tl.max((lanes & (decided == 0)).to(tl.int32)) == 0  # each column has one value in all rows to `until`
        while y < until:
            first, second, weight_y = source_of(y, scale_y, h)  # the same rows
            inside = mix_rows(upper, lower, weight_y) > threshold
            boundary = lanes & (inside != was)
            if WRITE:
                tl.store(boundaries + place + count, (x0 + x) * height + y0 + y, mask=boundary)
            count += boundary.to(tl.int32)
            was = inside
            y = tl.where(same, until, y + 1)
    # a run that is open at the crop's last pixel ends there, unless the photograph ends there
    end = (x0 + x) * height + y0 + crop_height
    closes = lanes & was & ((x == crop_width - 1) | (tall == 0)) & (stop == crop_height) & (end < height * width)
    if WRITE:
        tl.store(boundaries + place + count, end, mask=closes)
    else:
        tl.store(counts + stretch, count + closes.to(tl.int32), mask=lanes)


def rows_of_a_stretch(masks: int, height: int, width: int) -> int:
    """How many rows of a crop of this size a lane takes, for at least one mask."""
    programs = masks * triton.cdiv(width, _BLOCK)  # with one stretch a column
    return triton.cdiv(height, max(1, min(triton.cdiv(height, _ROWS), _PROGRAMS // programs)))


def run_boundaries(logits: Tensor, crop: Crop, size: tuple[int, int], threshold: float) -> list[RunBoundaries]:
    """Run boundaries of masks of a crop, at the photograph's `size` (height, width).

    `logits` are low-res, finite, float32, float16 or bfloat16 [n, h, w], contiguous. Results equal those of the twin,
    `postprocess.rle.run_boundaries`, except for pixels whose logit is within float32 rounding of the threshold.
    """
    require_kernel_device(logits, "logits")
    require_contiguous(logits, "logits", ndim=3)
    n, h, w = logits.shape
    if n == 0:
        return []
    height, width = size
    crop_height, crop_width = crop.size
    scale_y, scale_x = scales_of(logits, crop.size)
    rows = rows_of_a_stretch(n, crop_height, crop_width)
    stretches = triton.cdiv(crop_height, rows)
    counts = torch.empty(n, crop_width, stretches, dtype=torch.int32, device=logits.device)
    grid = (n, triton.cdiv(crop_width, _BLOCK), stretches)
    where = (h, w, crop_height, crop_width, scale_y, scale_x, float(threshold), crop.x0, crop.y0, height, width, rows)
    launch = {"BLOCK": _BLOCK, "num_warps": 1}
    boundaries_kernel[grid](logits, counts, counts, counts, *where, WRITE=False, **launch)
    ends = counts.flatten().cumsum(0)  # int64 [n * crop_width * stretches]
    of_mask = crop_width * stretches
    last = begin_copy(ends[of_mask - 1 :: of_mask])().numpy()  # int64 [n], where each mask's boundaries end
    boundaries = torch.empty(int(last[-1]), dtype=torch.int32, device=logits.device)
    boundaries_kernel[grid](logits, counts, ends, boundaries, *where, WRITE=True, **launch)
    return np.split(boundaries.cpu().numpy(), last[:-1])  # of any size: nothing is pinned for it
