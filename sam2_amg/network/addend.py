"""What the encoder's layers add to its residual stream, before the last step of their arithmetic."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Addend(NamedTuple):
    """rows * scale + bias. The kernel that adds it does this last step, too, with no pass over memory."""

    rows: Tensor  # float32 [N, C]
    bias: Tensor | None = None  # float32 [C]
    scale: float = 1.0

    def finish(self) -> Tensor:
        """[N, C]"""
        rows = self.rows * self.scale
        return rows if self.bias is None else rows + self.bias


class Adding(Protocol):
    """A layer or an MLP whose answer is added to the residual stream."""

    def addend(self, x: Tensor) -> Addend:
        """What [..., K] adds, one row for each row of `x`."""
