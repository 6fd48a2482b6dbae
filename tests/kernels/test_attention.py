"""Attention by fp16x3 products against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import DEVICE

from sam2_amg.kernels.attention import attention


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(
    ("images", "queries", "keys", "heads", "width"),
    [
        (1, 1, 1, 1, 16),
        (3, 4, 16, 2, 72),
        (2, 16, 64, 2, 48),
        (1, 70, 130, 1, 96),
        (2, 64, 64, 3, 56),
        (1, 3, 65, 1, 7),
    ],
)
@torch.inference_mode()
def test_as_exact_as_float32(images: int, queries: int, keys: int, heads: int, width: int, scale: float) -> None:
    random = torch.Generator().manual_seed(queries)
    q = torch.randn(images, queries, heads, width, generator=random).to(DEVICE) * scale
    # keys and values as the encoder has them: side by side in memory
    k, v = torch.randn(images, keys, 2, heads, width, generator=random).to(DEVICE).unbind(2)
    exact = F.scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    found = attention(q, k, v)
    assert found.shape == exact.shape
    assert found.is_contiguous()
    assert (found - exact).norm() <= 2e-6 * max(1.0, scale) * exact.norm()  # errors of scores grow with the scores


@torch.inference_mode()
def test_what_it_is_not_written_for_is_refused() -> None:
    wide = torch.zeros(1, 2, 1, 129, device=DEVICE)
    with pytest.raises(ValueError, match="at most 128 contiguous channels, not 129"):
        attention(wide, wide, wide)
    turned = torch.zeros(1, 16, 1, 16, device=DEVICE).transpose(1, 3)
    with pytest.raises(ValueError, match="contiguous"):
        attention(turned, turned, turned)
