"""The encoder in the form that is compiled against sam2's."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.network.encoder import PlainEncoder, encode


@torch.inference_mode()
def test_the_encoder_without_what_video_needs(small_model: SAM2Base) -> None:
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    found, expected = PlainEncoder(small_model)(pixels), encode(small_model, pixels)
    torch.testing.assert_close(found.image_embedding, expected.image_embedding, rtol=0, atol=1e-5)
    for one, twin in zip(found.high_res_features, expected.high_res_features, strict=True):
        torch.testing.assert_close(one, twin, rtol=0, atol=1e-5)
