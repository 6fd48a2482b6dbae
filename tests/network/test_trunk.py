"""The encoder's trunk around other layers than sam2's, as fast and furious have it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from bench.numerics import signal_to_noise
from sam2_amg.network.encoder import LaidOutAttention, encode, torch_attention
from sam2_amg.network.fp16_encoder import Fp16Encoder
from sam2_amg.network.fp16x3_encoder import use_fp16x3_encoder
from sam2_amg.network.fp16x3_linear import Fp16x3Mlp
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.network.trunk import TrunkBlock
from training.network import build

WINDOWS = (8, 4, 4, 2)  # of each stage, whose sides are 24, 12, 6 and 3: the last two are padded, as 14 and 7 are


def with_padded_windows() -> SAM2Base:
    torch.manual_seed(0)
    model = build(96).eval()
    trunk = model.image_encoder.trunk
    for i, block in enumerate(trunk.blocks):
        stage = sum(i - 1 > end for end in trunk.stage_ends)  # a stage's first block has the windows of the one before
        block.window_size = WINDOWS[stage] if block.window_size else 0
    assert {block.window_size for block in trunk.blocks} == {*WINDOWS, 0}
    return model.to(DEVICE)


@pytest.mark.parametrize(("fp16x3", "decibels"), [(True, 100), (False, 50)])
@torch.inference_mode()
def test_the_whole_encoder(fp16x3: bool, decibels: float) -> None:
    """Two images; windows with and without padding, pooled queries, global blocks and the neck, folded in furious."""
    plain = with_padded_windows()
    model = deepcopy(plain)
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with float32_convolutions():
        expected = encode(plain, pixels)
        if fp16x3:
            use_fp16x3_encoder(model)
        found = encode(model, pixels) if fp16x3 else Fp16Encoder(model)(pixels)
    assert not fp16x3 or not any(isinstance(module, nn.Linear) for module in model.image_encoder.modules())
    features = [(each.image_embedding, *each.high_res_features) for each in (found, expected)]
    for ours, theirs in zip(*features, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, torch.float32)
        assert signal_to_noise(theirs, ours) > decibels


@pytest.mark.parametrize("convert", [Fp16Encoder, use_fp16x3_encoder])
@torch.inference_mode()
def test_the_model_does_not_keep_what_is_replaced(convert: Callable[[SAM2Base], object]) -> None:
    """Compiling begins with the model in memory: 0.6 GiB of large, if it kept them."""
    model = build(128).eval()
    layers = [module for module in model.image_encoder.trunk.modules() if isinstance(module, nn.Linear)]
    replaced = [weakref.ref(layer.weight) for layer in layers]
    del layers
    encoder = convert(model)
    gc.collect()
    kept = [weight() for weight in replaced if weight() is not None]
    assert all(weight.dtype == torch.float16 for weight in kept)  # furious rounds queries, keys and values in place
    assert bool(kept) == (convert is Fp16Encoder)
    del encoder


def test_a_block_that_is_not_sam2s_is_refused() -> None:
    blocks = build(128).image_encoder.trunk.blocks
    pooled = next(block for block in blocks if block.q_stride)
    for change in ({"window_size": 5}, {"q_stride": (4, 4)}, {"q_stride": None}, {"dim": pooled.dim_out}):
        block = deepcopy(pooled)
        vars(block).update(change)
        attention, mlp = LaidOutAttention(block.attn, torch_attention), Fp16x3Mlp(block.mlp)
        with pytest.raises(ValueError, match=r"written for SAM 2's blocks, not \d+ to \d+ channels"):
            TrunkBlock(block, attention, mlp, takes=(torch.float32, torch.float32))
