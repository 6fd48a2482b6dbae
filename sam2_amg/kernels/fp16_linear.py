"""A float16 linear layer and GELU in one kernel, so that what comes between is neither stored nor rounded.

For a layer without GELU, `Fp16Linear` calls torch's product, which is faster.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from sam2_amg.kernels.gelu import gelu
from sam2_amg.kernels.launch import launcher, require_layer

LAUNCH = {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "GROUP": 4, "num_warps": 8, "num_stages": 3}


@triton.jit
def fp16_linear_gelu_kernel(
    x, weight, bias, out, rows, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes ROWS x COLUMNS of the output.

    Programs that follow each other go down GROUP tiles before they go right, because those share columns of the weight
    in the cache. What lies beyond the last row or column is computed again from an earlier one, and not stored.
    """
    blocks: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    place = tl.program_id(0) % (GROUP * blocks)
    row = (tl.program_id(0) // (GROUP * blocks) * GROUP + place % GROUP) * ROWS + tl.arange(0, ROWS)
    column = place // GROUP * COLUMNS + tl.arange(0, COLUMNS)
    k = tl.arange(0, DEPTH)
    x += (row % rows).to(tl.int64)[:, None] * INPUTS + k[None, :]
    weight += k[:, None] * OUTPUTS + (column % OUTPUTS)[None, :]
    sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, INPUTS, DEPTH):
        if INPUTS % DEPTH == 0:
            here, there = tl.load(x), tl.load(weight)
        else:
            real = k < INPUTS - start
            here = tl.load(x, mask=real[None, :], other=0.0)
            there = tl.load(weight, mask=real[:, None], other=0.0)
        sum = tl.dot(here, there, sum)
        x += DEPTH
        weight += DEPTH * OUTPUTS
    y = gelu(sum + tl.load(bias + column % OUTPUTS)[None, :])
    place = row.to(tl.int64)[:, None] * OUTPUTS + column[None, :]
    tl.store(out + place, y.to(tl.float16), mask=(row < rows)[:, None] & (column < OUTPUTS)[None, :])


@triton_op("sam2_amg::fp16_linear_gelu", mutates_args={})
def fp16_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU(x @ weight + bias), float16 [N, M], of float16 rows [N, K], weight [K, M] and a float32 bias [M].

    It is rounded once. Raises ValueError for other devices, shapes and dtypes, and for tensors that are not contiguous.
    Twin: `Fp16Linear` on a CPU.
    """
    require_layer(x, torch.float16, (weight,), bias)
    (rows, inputs), outputs = x.shape, len(bias)
    out = x.new_empty(rows, outputs)
    if rows > 0:
        tall = triton.cdiv(triton.cdiv(rows, LAUNCH["ROWS"]), LAUNCH["GROUP"]) * LAUNCH["GROUP"]
        launcher(fp16_linear_gelu_kernel)[(tall * triton.cdiv(outputs, LAUNCH["COLUMNS"]),)](
            x, weight, bias, out, rows, INPUTS=inputs, OUTPUTS=outputs, **LAUNCH
        )
    return out
