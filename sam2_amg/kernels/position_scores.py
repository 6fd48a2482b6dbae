"""Scores of positions: the part of image-to-token attention's scores that does not depend on the image.

    s_hnt = e_nh . k_ht, with projections e of positions, which all points share, and keys k of a point's tokens

The product has only 16 channels, so it is bound by writing scores. As 16-bit integers with a scale for each token they
take half the memory of float32. Float16 of the same size is off by up to 0.004 for scores of 8 to 16, which would be
the largest rounding error of mode furious; integers are off by about 0.0002. Twin: `position_scores` in
`network/folded_attention.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.fp16x3 import dot_fp16x3, to_fp16_pair
from sam2_amg.kernels.image_tokens import HEAD_CHANNELS, HEADS, SLOTS, WIDTH
from sam2_amg.kernels.launch import launcher, require_kernel_device
from sam2_amg.kernels.launch_configs import launch_configs

_LARGEST = 32766  # one less than a 16-bit integer holds, because a step is rounded, too
_ROUND = tl.constexpr(1.5 * 2**23)  # added and subtracted, it rounds a float32 below 2^22 to an integer


@triton.jit
def position_scores_kernel(
    positions, heads, steps, scores, points,
    PIXELS: tl.constexpr, TOKENS: tl.constexpr, INTEGERS: tl.constexpr, BLOCK: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK pixels for POINTS points, one head after another. POINTS * 8 are a tile's columns."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel, column = tl.arange(0, WIDTH), tl.arange(0, POINTS * SLOTS)
    point = (tl.program_id(1) * POINTS + column // SLOTS).to(tl.int64)
    token = column % SLOTS
    real = (point < points) & (token < TOKENS)
    for head in range(0, HEADS):
        place = (point * HEADS + head) * TOKENS + token
        keys = tl.load(heads + place[None, :] * WIDTH + channel[:, None], mask=real[None, :], other=0.0)
        asked = tl.load(positions + head * WIDTH + n[:, None] * HEAD_CHANNELS + channel[None, :])
        high, low = to_fp16_pair(asked)
        key_high, key_low = to_fp16_pair(keys)
        score = dot_fp16x3(high, low, key_high, key_low, tl.zeros((BLOCK, POINTS * SLOTS), tl.float32), True)
        if INTEGERS:
            score = score / tl.load(steps + place, mask=real, other=1.0)[None, :]
            score = ((score + _ROUND) - _ROUND).to(tl.int16)
        row = (point * HEADS + head) * (PIXELS * SLOTS) + token
        there = point < points
        tl.store(scores + row[None, :] + n[:, None] * SLOTS, score, mask=there[None, :])


@triton_op("sam2_amg::position_scores", mutates_args={})
def position_scores(positions: Tensor, heads: Tensor, integers: bool) -> tuple[Tensor, Tensor]:
    """Scores of positions [P, H, N, 8] and their steps, float32 [P, H*T], for `update_second`.

    `positions` [N, H*D] are shared by all points; `heads` [P, H, T, D] are per point. Both are float32; products are
    fp16x3. The scores are float32 in steps of one, or with `integers` int16. An eighth token that is not there has
    zeros.
    """
    require_kernel_device(positions, "positions")
    points, width, tokens, channels = heads.shape
    pixels = len(positions)
    if (width, channels) != (int(HEADS), int(WIDTH)) or tokens not in (7, 8) or pixels % 512:
        raise ValueError(f"the kernel takes SAM 2's decoder, not {pixels} positions and tokens {tuple(heads.shape)}")
    if not all(x.is_contiguous() and x.dtype == torch.float32 for x in (positions, heads)):
        raise ValueError("positions and projections must be contiguous and float32")
    steps = integer_steps(positions, heads) if integers else heads.new_ones(points, width * tokens)
    scores = heads.new_empty(points, width, pixels, int(SLOTS), dtype=torch.int16 if integers else torch.float32)
    config = launch_configs(positions.device).position_scores
    grid = pixels // config["BLOCK"], triton.cdiv(points, config["POINTS"])
    launcher(position_scores_kernel)[grid](
        positions, heads, steps, scores, points, PIXELS=pixels, TOKENS=tokens, INTEGERS=integers, **config
    )
    return scores, steps


def integer_steps(positions: Tensor, heads: Tensor) -> Tensor:
    """The smallest steps [P, H*T] that are sure to bring every score into 16 bits, by the Cauchy-Schwarz inequality.

    `positions` are [N, H*D], `heads` are [P, H, T, D].
    """
    longest = positions.unflatten(1, (heads.shape[1], -1)).norm(dim=2).amax(0)  # [H]
    return (heads.norm(dim=3) * longest[:, None] / _LARGEST).clamp_min(1e-30).flatten(1)
