"""A linear layer by fp16x3 in one kernel, for rows of few channels, which take longer to be read than to be multiplied.

It splits the rows as it reads them. `Fp16x3Linear` writes their parts to memory first, three times as wide in float16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.fp16x3 import to_fp16_pair
from sam2_amg.kernels.gelu import gelu
from sam2_amg.kernels.launch import launcher, require_layer

LAUNCH = {"ROWS": 64, "COLUMNS": 128, "DEPTH": 16, "num_warps": 4, "num_stages": 4}  # fewer columns for fewer outputs


@triton.jit
def linear_kernel(
    x, high, low, bias, out, rows, SCALE: tl.constexpr, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    GELU: tl.constexpr, RELU: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """A program computes ROWS x COLUMNS of the output. Programs of the same rows follow each other.

    With PARTS, rows of the output are low part, high part, high part, OUTPUTS numbers each.
    """
    blocks: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    here, there = (row < rows)[:, None], (column < OUTPUTS)[None, :]
    sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    small = tl.zeros((ROWS, COLUMNS), tl.float32)  # apart: tensor cores round what is added to a large sum
    for start in range(0, INPUTS, DEPTH):
        k = start + tl.arange(0, DEPTH)
        part = tl.load(x + row[:, None] * INPUTS + k[None, :], mask=here & (k < INPUTS)[None, :], other=0.0)
        place, mask = k[:, None] * OUTPUTS + column[None, :], (k < INPUTS)[:, None] & there
        weight_high = tl.load(high + place, mask=mask, other=0.0)
        weight_low = tl.load(low + place, mask=mask, other=0.0)
        x_high, x_low = to_fp16_pair(part)
        sum = tl.dot(x_high, weight_high, sum)
        small = tl.dot(x_low, weight_high, small)
        small = tl.dot(x_high, weight_low, small)
    y = (sum + small) * SCALE + tl.load(bias + column, mask=column < OUTPUTS, other=0.0)[None, :]
    if GELU:
        y = gelu(y)
    if RELU:
        y = tl.where(y < 0, 0.0, y)  # NaN stays NaN
    if PARTS:
        y_high, y_low = to_fp16_pair(y)
        place = out + row[:, None] * (3 * OUTPUTS) + column[None, :]
        tl.store(place, y_low, mask=here & there)
        tl.store(place + OUTPUTS, y_high, mask=here & there)
        tl.store(place + 2 * OUTPUTS, y_high, mask=here & there)
    else:
        tl.store(out + row[:, None] * OUTPUTS + column[None, :], y.to(out.dtype.element_ty), mask=here & there)


def launch_for(outputs: int) -> dict[str, int]:
    """`LAUNCH` with no more columns than so many outputs need, but at least the 16 that a tensor core takes."""
    return LAUNCH | {"COLUMNS": min(LAUNCH["COLUMNS"], max(16, triton.next_power_of_2(outputs)))}


@triton_op("sam2_amg::fp16x3_linear", mutates_args={})
def fp16x3_linear(
    x: Tensor, high: Tensor, low: Tensor, bias: Tensor, scale: float, activation: str = "", in_parts: bool = False
) -> Tensor:
    """Float32 rows [N, K] times (high + low) [K, M] times `scale`, plus bias [M]: float32 [N, M].

    `high` and `low` are float16. `activation` is "gelu" or "relu" behind it, or "". With GELU the result is float16.
    `in_parts`, it is [N, 3 M] as from `fp16x3_rows`. Raises ValueError for other devices, shapes, dtypes and
    activations, and for tensors that are not contiguous. Twin: `Fp16x3Linear` on a CPU.
    """
    require_layer(x, torch.float32, (high, low), bias)
    (rows, inputs), outputs = x.shape, len(bias)
    if activation not in ("", "gelu", "relu"):
        raise ValueError(f'the activation must be "gelu", "relu" or "", not "{activation}"')
    half = activation == "gelu" or in_parts
    out = x.new_empty(rows, 3 * outputs if in_parts else outputs, dtype=torch.float16 if half else torch.float32)
    launch = launch_for(outputs)
    programs = triton.cdiv(rows, launch["ROWS"]) * triton.cdiv(outputs, launch["COLUMNS"])
    launcher(linear_kernel)[(programs,)](
        x, high, low, bias, out, rows,
        SCALE=scale, INPUTS=inputs, OUTPUTS=outputs, GELU=activation == "gelu", RELU=activation == "relu",
        PARTS=in_parts, **launch,
    )  # fmt: skip
    return out
