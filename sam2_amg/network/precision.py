"""What float32 means on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Has cuDNN run convolutions of float32 in float32, while it lasts.

    By torch's default they are TF32, which rounds what differs in the last bit by 2^-11, so that no two ways to the
    same mask would agree; as for products, float32 is then float32 on every device.
    """
    benchmark = torch.backends.cudnn.benchmark
    with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=False):
        yield
