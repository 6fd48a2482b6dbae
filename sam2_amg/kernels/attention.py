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
def load_tile(pointer, row, length, stride, channel, width):
    """Loads rows of a head [L, D], padded with zeros: [BLOCK, WIDE]"""
    real = (row < length)[:, None] & (channel < width)[None, :]
    return tl.load(pointer + row[:, None] * stride + channel[None, :], mask=real, other=0.0)


@triton.jit
def attention_kernel(
    q, k, v, out, heads, queries, width,
    q_image, q_row, q_head, k_image, k_row, k_head, v_image, v_row, v_head,
    SCALE: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr, FP16X3: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK queries of one head of one image (or window).

    The grid has one dimension, because the others are limited to 65,535, too few for the windows of eight images.
    """
    blocks = tl.cdiv(queries, BLOCK)
    place = tl.program_id(0) // blocks
    image, head = (place // heads).to(tl.int64), place % heads
    channel = tl.arange(0, WIDE)
    row = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    query = load_tile(q + image * q_image + head * q_head, row, queries, q_row, channel, width)
    query_high, query_low = to_fp16_pair(query.to(tl.float32) * SCALE)
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sum = tl.zeros((BLOCK, WIDE), tl.float32)
    for start in range(0, KEYS, BLOCK):
        n = start + tl.arange(0, BLOCK)
        high, low = to_fp16_pair(load_tile(k, n, KEYS, k_row, channel, width))
        score = tl.zeros((BLOCK, BLOCK), tl.float32)
        score = dot_fp16x3(query_high, query_low, tl.trans(high), tl.trans(low), score, FP16X3)
        score = tl.where((n < KEYS)[None, :], score, float("-inf"))
        now = tl.maximum(most, tl.max(score, 1))
        shrink = tl.exp(most - now)
        weights = tl.exp(score - now[:, None])
        total = total * shrink + tl.sum(weights, 1)
        weights_high, weights_low = to_fp16_pair(weights)
        high, low = to_fp16_pair(load_tile(v, n, KEYS, v_row, channel, width))
        here = dot_fp16x3(weights_high, weights_low, high, low, tl.zeros((BLOCK, WIDE), tl.float32), FP16X3)
        sum = sum * shrink[:, None] + here  # see `dot_fp16x3`
        most = now
    answer = ((image * queries + row) * heads + head)[:, None] * width + channel[None, :]
    tl.store(out + answer, sum / total[:, None], mask=(row < queries)[:, None] & (channel < width)[None, :])


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
    configs = launch_configs(q.device)
    config = configs.small_attention if k.shape[1] <= configs.small_attention["BLOCK"] else configs.attention
    launcher(attention_kernel)[(triton.cdiv(queries, config["BLOCK"]) * images * heads,)](
        q, k, v, out, heads, queries, width,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        SCALE=width**-0.5, KEYS=k.shape[1], WIDE=max(16, triton.next_power_of_2(width)),
        FP16X3=q.dtype == torch.float32, **config,
    )  # fmt: skip
    return out
