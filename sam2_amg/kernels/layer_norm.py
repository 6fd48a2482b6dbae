"""LayerNorm of short rows, with what comes before and after it: an addition and GELU.

A program has several rows in registers, so that reading and writing them bounds it. torch has a thread block for each
row, which is too much for 64 or 256 numbers. Twin: what `normalise` in `network/layer_norm.py` has torch do on a CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sam2_amg.kernels.launch import require_kernel_device

LAUNCH = {"TILE": 1024, "num_warps": 4}  # numbers of a program: 16 rows of 64 channels, or 4 of 256
_ROOT_OF_HALF = tl.constexpr(0.5**0.5)


# `count` depends on the number of points. Without specialisation on it, another number compiles no new variant.
@triton.jit(do_not_specialize=["count"])
def layer_norm_kernel(
    x, added, gain, bias, eps, out, count,
    CHANNELS: tl.constexpr, ADDED: tl.constexpr, GELU: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A program has a tile of rows. `x` is blocks of `count` rows, as many as `added` has; no tile is in two blocks."""
    ROWS: tl.constexpr = TILE // CHANNELS
    tiles = tl.cdiv(count, ROWS)  # of a block
    row = (tl.program_id(0) % tiles).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # within the block
    channel = tl.arange(0, CHANNELS)
    here = (row < count)[:, None]
    place = row[:, None] * CHANNELS + channel[None, :]
    block = (tl.program_id(0) // tiles).to(tl.int64) * count * CHANNELS
    y = tl.load(x + block + place, mask=here, other=0.0)
    if ADDED:
        y += tl.load(added + place, mask=here, other=0.0)
    y -= (tl.sum(y, 1) / CHANNELS)[:, None]
    y *= tl.rsqrt(tl.sum(y * y, 1) / CHANNELS + eps)[:, None]
    y = y * tl.load(gain + channel)[None, :] + tl.load(bias + channel)[None, :]
    if GELU:  # as exact as torch's; the one in gelu.py is quicker instead
        y = 0.5 * y * (1.0 + tl.math.erf(y * _ROOT_OF_HALF))
    tl.store(out + block + place, y, mask=here)


def layer_norm(
    x: Tensor, gain: Tensor, bias: Tensor, eps: float, added: Tensor | None = None, with_gelu: bool = False
) -> Tensor:
    """LayerNorm over the last dimension of `x` [..., C], with `gain` and `bias` [C], and GELU behind it if `with_gelu`.

    `added` [M, C] is added before, to each M rows of `x` in turn. C is a power of two. The result is a new tensor.
    Raises ValueError for other devices and shapes, and for tensors that are not contiguous and float32.
    """
    require_kernel_device(x, "x")
    given = [x, gain, bias] if added is None else [x, gain, bias, added]
    if not all(each.is_contiguous() and each.dtype == torch.float32 for each in given):
        raise ValueError("rows, gain, bias and what is added must be contiguous and float32")
    channels = x.shape[-1] if x.ndim else 0
    if not 0 < channels <= LAUNCH["TILE"] or channels & (channels - 1):
        raise ValueError(f"channels must be a power of two, and at most {LAUNCH['TILE']}, not {channels}")
    rows = x.numel() // channels
    count = rows if added is None else len(added)  # of a block
    fits = added is None or (added.shape == (count, channels) and (rows % count if count else rows) == 0)
    if not gain.shape == bias.shape == (channels,) or not fits:
        shapes = ", ".join(str(tuple(each.shape)) for each in given)
        raise ValueError(f"rows, gain, bias and what is added do not fit together: {shapes}")
    out = torch.empty_like(x)
    if rows > 0:
        tiles = triton.cdiv(count, LAUNCH["TILE"] // channels) * (rows // count)
        layer_norm_kernel[(tiles,)](
            x, x if added is None else added, gain, bias, eps, out, count,
            CHANNELS=channels, ADDED=added is not None, GELU=with_gelu, **LAUNCH,
        )  # fmt: skip
    return out
