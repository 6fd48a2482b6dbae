"""An addition to the encoder's residual stream and the LayerNorm that follows, in one kernel.

Attention takes the tokens of an image window by window, everything else row by row. The kernel reads what is added in
one layout and writes what is normalised in another, so that no pass over memory rearranges them. Twin:
`add_and_normalise_in_torch` in `network/residual.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.launch import launcher, require_kernel_device

LAUNCH = {"TILE": 2048, "num_warps": 1}  # numbers of a program: two rows of 576 channels, which take 1,024 numbers each


@triton.jit
def residual_norm_kernel(
    x, added, bias, gain, shift, total, normed, rows, SIDE: tl.constexpr, CHANNELS: tl.constexpr, SCALE: tl.constexpr,
    EPS: tl.constexpr, BIAS: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr, WIDE: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """A program has TILE // WIDE rows of `normed`, which are in windows of TO x TO tokens, or in images where TO is 0.

    `added` is in windows of FROM x FROM, or in images. `rows` counts padding, too, which becomes zeros.
    """
    row = tl.program_id(0).to(tl.int64) * (TILE // WIDE) + tl.arange(0, TILE // WIDE)
    if TO:
        across_to: tl.constexpr = (SIDE + TO - 1) // TO
        window, inside = row // (TO * TO), row % (TO * TO)
        image = window // (across_to * across_to)
        v = window // across_to % across_to * TO + inside // TO
        u = window % across_to * TO + inside % TO
    else:
        image, v, u = row // (SIDE * SIDE), row // SIDE % SIDE, row % SIDE
    pixel = (image * SIDE + v) * SIDE + u
    source = pixel
    if FROM:
        across_from: tl.constexpr = (SIDE + FROM - 1) // FROM
        source = (image * across_from + v // FROM) * across_from + u // FROM  # the window
        source = (source * FROM + v % FROM) * FROM + u % FROM
    channel = tl.arange(0, WIDE)
    known = channel < CHANNELS
    real = (row < rows) & (v < SIDE) & (u < SIDE)
    here = real[:, None] & known[None, :]
    y = tl.load(added + source[:, None] * CHANNELS + channel[None, :], mask=here, other=0.0) * SCALE
    if BIAS:
        y += tl.load(bias + channel, mask=known, other=0.0)[None, :]
    y += tl.load(x + pixel[:, None] * CHANNELS + channel[None, :], mask=here, other=0.0)
    tl.store(total + pixel[:, None] * CHANNELS + channel[None, :], y, mask=here)
    y = tl.where(here, y - (tl.sum(y, 1) / CHANNELS)[:, None], 0.0)
    y *= tl.rsqrt(tl.sum(y * y, 1) / CHANNELS + EPS)[:, None]
    y *= tl.load(gain + channel, mask=known, other=0.0)[None, :]
    y += tl.load(shift + channel, mask=known, other=0.0)[None, :]
    if TO:
        y = tl.where(real[:, None], y, 0.0)
    place = normed + row[:, None] * CHANNELS + channel[None, :]
    tl.store(place, y.to(normed.dtype.element_ty), mask=(row < rows)[:, None] & known[None, :])


def padded_side(side: int, window: int) -> int:
    """`side` in tokens, padded to whole windows; as it is where `window` is 0."""
    return -(-side // window) * window if window else side


def tokens_of(images: int, side: int, window: int) -> int:
    """The rows of so many images of `side` x `side` tokens, in windows with padding unless `window` is 0."""
    return images * padded_side(side, window) ** 2


@triton_op("sam2_amg::residual_norm", mutates_args={})
def residual_norm(
    x: Tensor, added: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor,
    scale: float, eps: float, from_window: int, to_window: int, to_float16: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x + added * scale + bias, float32 [n, h, h, C], and its LayerNorm with `gain` and `shift`, [N, C].

    `x` is float32 [n, h, h, C]; `added` are float32 rows [M, C]; `bias` may be None. Rows are in windows of
    `from_window` and `to_window` tokens a side, as sam2's `window_partition` pads and arranges them, or in the order of
    the image for 0. The norm of padding is zero. `to_float16` rounds the norm. Raises ValueError for other devices,
    shapes and dtypes, and for tensors that are not contiguous.
    """
    vectors = {"gain": gain, "shift": shift} | ({} if bias is None else {"bias": bias})
    given = {"x": x, "added": added, **vectors}
    images, side, _, channels = x.shape if x.ndim == 4 else (0,) * 4
    fits = x.shape == (images, side, side, channels) and added.shape == (tokens_of(images, side, from_window), channels)
    if not fits or any(each.shape != (channels,) for each in vectors.values()):
        shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in given.items())
        raise ValueError(f"these do not fit together with windows of {from_window}: {shapes}")
    for name, each in given.items():
        require_kernel_device(each, name)
        if each.dtype != torch.float32 or not each.is_contiguous():
            raise ValueError(f"{name} must be contiguous float32, not {each.dtype} with strides {each.stride()}")
    rows, wide = tokens_of(images, side, to_window), triton.next_power_of_2(channels)
    total = torch.empty_like(x)
    normed = x.new_empty(rows, channels, dtype=torch.float16 if to_float16 else torch.float32)
    tile = max(LAUNCH["TILE"], wide)
    launcher(residual_norm_kernel)[(triton.cdiv(rows, tile // wide),)](
        x, added, gain if bias is None else bias, gain, shift, total, normed, rows,
        SIDE=side, CHANNELS=channels, SCALE=scale, EPS=eps, BIAS=bias is not None,
        FROM=from_window, TO=to_window, WIDE=wide,
        **(LAUNCH | {"TILE": tile}),
    )  # fmt: skip
    return total, normed
