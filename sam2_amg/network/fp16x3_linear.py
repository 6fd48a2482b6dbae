"""fp16x3: linear layers with float32 accuracy on float16 tensor cores. Each number is the sum of two float16 numbers.

x = x_hi + x_lo and W = W_hi + W_lo with x_hi = float16(x), x_lo = float16(x - x_hi); then

    x W^T ~ x_lo W_hi^T + x_hi W_lo^T + x_hi W_hi^T

which leaves out x_lo W_lo^T, about 2^-22 of the result. The three products run as one product of three times the depth
with float32 accumulation (Markidis et al. 2018, "NVIDIA tensor core programmability, performance & precision"). Tensor
cores round each addition toward zero (Ootomo & Yokota 2022, "Recovering single precision accuracy from tensor cores").
The small products come first, so that only a third of the additions are to a large sum.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

from sam2_amg.kernels.fp16x3 import fp16x3_rows
from sam2_amg.kernels.linear import fp16x3_linear
from sam2_amg.network.addend import Addend

# A GPU multiplies rows of up to so many numbers in a kernel that reads them as they are. For longer rows, a product of
# three times the depth is faster (`python -m bench.kernels --only linear`), unless an activation and a split follow.
_SHORT_ROWS, _SHORT_ROWS_OF_MLP = 288, 576
_ACTIVATIONS = {nn.GELU: "gelu", nn.ReLU: "relu"}  # of an MLP of sam2
_LARGEST_WEIGHT = 8  # as a power of two: W_lo stays above float16's subnormal numbers, W_hi below its largest


def to_fp16_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 -> (hi, lo), float16. Their sum is x to about 2^-22 of x, or to 2^-25 if |x| is under 2^-3.

    Do not compile it: a compiler that fuses the casts computes `x - hi.float()` as zero. Use `fp16x3_rows` there.
    """
    hi = x.half()
    return hi, (x - hi.float()).half()


class Fp16x3Linear(nn.Module):
    """A float32 `nn.Linear`, [..., K] -> [..., M], with float16 products. A |x| over 65504 gives infinity or NaN.

    `activation` is "gelu" or "relu" behind it, or "". With GELU its output is float16, rounded after GELU.
    """

    product: Tensor  # [3 * K, M] float16: W_hi, W_lo, W_hi, scaled
    bias: Tensor  # [M]

    def __init__(self, linear: nn.Linear, activation: str = "") -> None:
        super().__init__()
        weight = linear.weight.float()
        exponent = _LARGEST_WEIGHT - math.ceil(math.log2(weight.abs().max().clamp_min(2.0**-60).item()))
        hi, lo = to_fp16_pair(weight.T * 2.0**exponent)
        self.register_buffer("product", torch.cat([hi, lo, hi]).contiguous())
        self.register_buffer("bias", weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.float())
        self.scale = 2.0**-exponent
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`linear(x)`, float32; with GELU, float16."""
        rows = x.flatten(0, -2)
        multiply = self.in_one_kernel if self.is_short(rows) else self.as_one_product
        return multiply(rows).unflatten(0, x.shape[:-1])

    def is_short(self, rows: Tensor, most: int = _SHORT_ROWS) -> bool:
        """Whether a kernel is to take rows as they are."""
        return rows.is_cuda and rows.shape[1] <= most

    def in_one_kernel(self, rows: Tensor, in_parts: bool = False) -> Tensor:
        """Rows [N, K] -> [N, M], on a GPU; or `in_parts` [N, 3 M]."""
        high, low, _ = self.product.split(rows.shape[1])
        return fp16x3_linear(rows.contiguous(), high, low, self.bias, self.scale, self.activation, in_parts)

    def as_one_product(self, rows: Tensor) -> Tensor:
        """Rows [N, K] -> [N, M]."""
        y = self.activate(self.of_parts(in_three(rows)))
        return y.half() if self.activation == "gelu" else y

    def activate(self, y: Tensor) -> Tensor:
        """The activation of `y`, in its dtype."""
        if self.activation == "gelu":
            return F.gelu(y)
        return y.relu() if self.activation == "relu" else y

    def addend(self, x: Tensor) -> Addend:
        """See `Adding`."""
        assert not self.activation, "what is added to the residual stream has no activation"
        rows = x.flatten(0, -2)
        return Addend(self.in_one_kernel(rows)) if self.is_short(rows) else self.addend_of_parts(in_three(rows))

    def addend_of_parts(self, parts: Tensor) -> Addend:
        """The same for parts of rows, [N, 3 K]."""
        return Addend(self.multiply(parts), self.bias, self.scale)

    def of_parts(self, parts: Tensor) -> Tensor:
        """Parts of rows [N, 3 K] -> [N, M], without the activation."""
        return self.addend_of_parts(parts).finish()

    def multiply(self, parts: Tensor) -> Tensor:
        """Parts of rows [N, 3 K] -> [N, M], without scale and bias. A CPU multiplies the same parts in float32, where
        each product is exact."""
        if parts.is_cuda:
            return torch.mm(parts, self.product, out_dtype=torch.float32)
        return parts.float() @ self.product.float()


def in_three(rows: Tensor) -> Tensor:
    """Rows [N, K] -> float16 [N, 3 K]: low part, high part, high part."""
    if rows.is_cuda:
        return fp16x3_rows(rows)
    hi, lo = to_fp16_pair(rows)
    return torch.cat([lo, hi, hi], dim=-1)


class Fp16x3Mlp(nn.Module):
    """sam2's MLP of two layers. The activation between them and the split of what it gives into parts are one step."""

    def __init__(self, mlp: MLP) -> None:
        """Raises ValueError for an MLP of another structure."""
        super().__init__()
        if not is_two_layers(mlp):
            raise ValueError("the MLP is written for two layers with GELU or ReLU between, as those of SAM 2")
        first, second = mlp.layers
        self.first, self.second = Fp16x3Linear(first, _ACTIVATIONS[type(mlp.act)]), Fp16x3Linear(second)

    def forward(self, x: Tensor) -> Tensor:
        """`mlp(x)`, float32 [..., C]."""
        return self.addend(x).finish().unflatten(0, x.shape[:-1])

    def addend(self, x: Tensor) -> Addend:
        """See `Adding`."""
        rows, first = x.flatten(0, -2), self.first
        if first.is_short(rows, _SHORT_ROWS_OF_MLP):
            hidden = first.in_one_kernel(rows, in_parts=True)  # [N, 3 * 4 C]
        elif rows.is_cuda and first.activation == "gelu":
            hidden = fp16x3_rows(first.multiply(in_three(rows)), first.bias, first.scale)
        else:
            hidden = in_three(first.activate(first.of_parts(in_three(rows))))
        return self.second.addend_of_parts(hidden)


def is_two_layers(module: nn.Module) -> bool:
    """Whether `Fp16x3Mlp` can replace a module."""
    return (
        isinstance(module, MLP)
        and len(module.layers) == 2
        and type(module.act) in _ACTIVATIONS
        and not module.sigmoid_output
    )


def use_fp16x3_linears(module: nn.Module) -> None:
    """Replaces every `nn.Linear` inside `module` by an `Fp16x3Linear`, and MLPs of two layers by `Fp16x3Mlp`."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Fp16x3Linear(child))
        elif is_two_layers(child):
            setattr(module, name, Fp16x3Mlp(child))
        else:
            use_fp16x3_linears(child)
