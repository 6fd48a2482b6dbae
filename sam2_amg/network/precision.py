"""Float32 precision on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """A context in which cuDNN runs float32 convolutions in float32 instead of TF32, torch's default.

    TF32 rounding can turn a difference in the last bit into one of 2^-11, so that modes would disagree. Matrix products
    are float32 by default.
    """
    benchmark = torch.backends.cudnn.benchmark
    with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False):
        yield
