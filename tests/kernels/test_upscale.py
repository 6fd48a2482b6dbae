"""Masks of kept points in one kernel against the plain sum."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.decoder import Kept
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.fp16x3_image_tokens import Fp16ImageTokens, Fp16x3ImageTokens
from sam2_amg.network.fp16x3_linear import to_fp16_pair
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.network.image_tokens import SharedImage


def random_case(points: int, side: int) -> tuple[Tensor, Tensor, ImageFeatures]:
    random = torch.Generator().manual_seed(points)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(DEVICE)

    features = ImageFeatures(
        normal(1, 256, side, side), (normal(1, 32, 4 * side, 4 * side), normal(1, 64, 2 * side, 2 * side))
    )
    return normal(points, side * side, 256), normal(points, 32, 3), features


@pytest.mark.parametrize("fp16x3", [True, False])
@pytest.mark.parametrize(
    ("point", "mask"), [([0, 0, 0, 2, 1], [0, 1, 2, 1, 0]), ([2], [2]), ([1, 0], [1, 1]), ([], [])], ids=str
)
@torch.inference_mode()
def test_kernel_equals_the_plain_sum(demo_model: SAM2Base, fp16x3: bool, point: list[int], mask: list[int]) -> None:
    """Operands of 11 bits: within a thousandth of the largest logit, and nearer on average; of 22: in 100,000."""
    upscaling = FusedUpscaling(deepcopy(demo_model).to(DEVICE).sam_mask_decoder, fp16x3)
    keys, hyper, features = random_case(3, 16)
    kept = Kept(*(torch.tensor(index, dtype=torch.int64, device=DEVICE) for index in (point, mask)))
    arranged = upscaling.arrange(features)
    expected = upscaling(keys, hyper, *arranged)[kept.point, kept.mask]
    in_memory = torch.stack(to_fp16_pair(keys), dim=1) if fp16x3 else keys.half()
    found = upscaling.masks(in_memory, hyper, *(x.to(upscaling.dtype) for x in arranged), kept)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape == (len(point), 64, 64)
    if point:
        shorter = 100 if fp16x3 else 1
        assert (found - expected).abs().max() < 1e-3 / shorter * expected.abs().max()
        assert (found - expected).norm() < 5e-4 / shorter * expected.norm()


@torch.inference_mode()
def test_other_numbers_of_tokens_are_refused(demo_model: SAM2Base) -> None:
    upscaling = FusedUpscaling(deepcopy(demo_model).to(DEVICE).sam_mask_decoder, fp16x3=False)
    keys, hyper, features = random_case(1, 6)
    none = Kept(*(torch.zeros(1, dtype=torch.int64, device=DEVICE) for _ in range(2)))
    with pytest.raises(ValueError, match="tiles of 128 image tokens, not 36"):
        upscaling.masks(keys.half(), hyper, *upscaling.arrange(features), none)
    keys, hyper, features = random_case(1, 16)
    with pytest.raises(ValueError, match=r"float16, in two parts by fp16x3, not torch\.float32"):
        upscaling.masks(keys, hyper, *upscaling.arrange(features), none)
    with pytest.raises(ValueError, match=r"features must be torch\.float16, not torch\.float32"):
        upscaling.masks(keys.half(), hyper, *upscaling.arrange(features), none)


@pytest.mark.parametrize("fp16x3", [True, False])
@torch.inference_mode()
def test_without_the_kernel_every_mask_is_the_same(demo_model: SAM2Base, fp16x3: bool) -> None:
    model = deepcopy(demo_model).to(DEVICE)
    upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3)
    kind = Fp16x3ImageTokens if fp16x3 else Fp16ImageTokens
    image_tokens = kind(model, torch.zeros(256, 256, device=DEVICE), upscaling)
    keys, hyper, features = random_case(2, 16)
    children, grandchildren = upscaling.arrange(features)
    nothing = keys[0, :0]
    image = SharedImage(nothing, nothing, nothing, nothing, children, grandchildren)
    state = torch.stack(to_fp16_pair(keys), dim=1) if fp16x3 else keys.half()
    every = Kept(*torch.ones(2, 3, device=DEVICE).nonzero(as_tuple=True))
    found = image_tokens.upscale(image, state, hyper).flatten(0, 1)
    rounded = children.to(upscaling.dtype), grandchildren.to(upscaling.dtype)
    expected = upscaling.masks(state, hyper, *rounded, every)
    assert (found - expected).norm() < (5e-6 if fp16x3 else 5e-4) * expected.norm()
