"""Attention on tensor cores, with the running softmax of Dao et al. 2022 ("FlashAttention").

For float32 operands, products are fp16x3 (`network/fp16x3_linear.py`), with float32 accuracy. For float16 operands,
products are float16. Accumulation and softmax are float32. Twin: `F.scaled_dot_product_attention`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.fp16x3 import dot_fp16x3, to_fp16_pair
from sam2_amg.kernels.launch import launcher, require_kernel_device
from sam2_amg.kernels.launch_configs import launch_configs

_WIDEST = 128  # maximum channels per head


@triton.jit
def load_tile(pointer, row, length, stride, channel, WIDTH: tl.constexpr):
    """Loads channels of rows of a head [L, D], padded with zeros."""
    real = (row < length)[:, None] & (channel < WIDTH)[None, :]
    return tl.load(pointer + row[:, None] * stride + channel[None, :], mask=real, other=0.0)


@triton.jit
def load_scaled_pair(pointer, row, length, stride, channel, WIDTH: tl.constexpr, SCALE: tl.constexpr):
    """Those channels times SCALE, in two float16 parts."""
    return to_fp16_pair(load_tile(pointer, row, length, stride, channel, WIDTH).to(tl.float32) * SCALE)


@triton.jit
def attention_kernel(
    q, k, v, out, heads, queries, q_image, q_row, k_image, k_row, v_image, v_row,
    SCALE: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, REST: tl.constexpr,
    Q_HEAD: tl.constexpr, K_HEAD: tl.constexpr, V_HEAD: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK queries of one head of one image (or window).

    A tile has WIDE channels, and a further one the REST, if there are any: 72 channels, those of the large encoder, are
    64 and 16, where one power of two would be 128. WIDTH and the strides of heads are compiled in: if they are
    multiples of four or eight, but not of 16, loads of 16 bytes are possible only so. The grid has one dimension,
    because the others are limited to 65,535, too few for the windows of eight images.

    `zero` hides that further channels of values lie side by side. Triton would put them so into shared memory, too.
    Then the ptxas of CUDA 12.8 computes addresses of this second tile from a register that nothing has written.
    """
    blocks = tl.cdiv(queries, BLOCK)
    place = tl.program_id(0) // blocks
    image, head = (place // heads).to(tl.int64), place % heads
    channel = tl.arange(0, WIDE)
    row = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    q += image * q_image + head * Q_HEAD
    query_high, query_low = load_scaled_pair(q, row, queries, q_row, channel, WIDTH, SCALE)
    if REST:
        further = WIDE + tl.arange(0, REST)
        zero = tl.program_id(1)
        more_high, more_low = load_scaled_pair(q, row, queries, q_row, further, WIDTH, SCALE)
        more = tl.zeros((BLOCK, REST), tl.float32)
    k += image * k_image + head * K_HEAD
    v += image * v_image + head * V_HEAD
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sum = tl.zeros((BLOCK, WIDE), tl.float32)
    for start in range(0, KEYS, BLOCK):
        n = start + tl.arange(0, BLOCK)
        high, low = to_fp16_pair(load_tile(k, n, KEYS, k_row, channel, WIDTH))
        score = tl.zeros((BLOCK, BLOCK), tl.float32)
        score = dot_fp16x3(query_high, query_low, tl.trans(high), tl.trans(low), score, FP16X3)
        if REST:
            high, low = to_fp16_pair(load_tile(k, n, KEYS, k_row, further, WIDTH))
            score = dot_fp16x3(more_high, more_low, tl.trans(high), tl.trans(low), score, FP16X3)
        score = tl.where((n < KEYS)[None, :], score, float("-inf"))
        now = tl.maximum(most, tl.max(score, 1))
        shrink = tl.exp(most - now)
        weights = tl.exp(score - now[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weights_high, weights_low = to_fp16_pair(weights)
        high, low = to_fp16_pair(load_tile(v, n, KEYS, v_row, channel, WIDTH))
        here = dot_fp16x3(weights_high, weights_low, high, low, tl.zeros((BLOCK, WIDE), tl.float32), FP16X3)
        sum = sum * shrink[:, None] + here  # see `dot_fp16x3`
        if REST:
            high, low = to_fp16_pair(load_tile(v, n, KEYS, v_row, further ^ zero, WIDTH))
            here = dot_fp16x3(weights_high, weights_low, high, low, tl.zeros((BLOCK, REST), tl.float32), FP16X3)
            more = more * shrink[:, None] + here
        most = now
    out += ((image * queries + row) * heads + head)[:, None] * WIDTH
    here = (row < queries)[:, None]
    tl.store(out + channel[None, :], sum / total[:, None], mask=here & (channel < WIDTH)[None, :])
    if REST:
        tl.store(out + further[None, :], more / total[:, None], mask=here & (further < WIDTH)[None, :])


@triton_op("sam2_amg::attention", mutates_args={})
def attention(q: Tensor, k: Tensor, v: Tensor, to_float32: bool = False) -> Tensor:
    """Attention of queries [B, L, H, D] to keys and values [B, M, H, D], channels contiguous: [B, L, H, D].

    All float32, or all float16, and so is the result; with `to_float32` it is not rounded. Raises ValueError for other
    dtypes and devices, and for over 128 channels per head.
    """
    require_kernel_device(q, "queries")
    images, queries, heads, width = q.shape
    if width > _WIDEST or any(x.stride(3) != 1 for x in (q, k, v)):
        raise ValueError(f"the attention kernel takes heads of at most {_WIDEST} contiguous channels, not {width}")
    if q.dtype not in (torch.float32, torch.float16) or not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"the attention kernel takes float32 or float16, not {q.dtype}, {k.dtype} and {v.dtype}")
    out = q.new_empty(images, queries, heads, width, dtype=torch.float32 if to_float32 else q.dtype)
    wide, rest = tile_widths(width)
    configs = launch_configs(q.device)
    config = configs.small_attention if k.shape[1] <= configs.small_attention["BLOCK"] else configs.attention
    launcher(attention_kernel)[(triton.cdiv(queries, config["BLOCK"]) * images * heads,)](
        q, k, v, out, heads, queries, *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        SCALE=width**-0.5, KEYS=k.shape[1], WIDTH=width, WIDE=wide, REST=rest,
        Q_HEAD=q.stride(2), K_HEAD=k.stride(2), V_HEAD=v.stride(2), FP16X3=q.dtype == torch.float32, **config,
    )  # fmt: skip
    return out


def tile_widths(width: int) -> tuple[int, int]:
    """WIDE and REST for heads of `width` channels: powers of two from 16 on, or no REST."""
    whole = max(16, triton.next_power_of_2(width))
    rest = max(16, triton.next_power_of_2(width - whole // 2))
    return (whole, 0) if rest >= whole // 2 else (whole // 2, rest)
