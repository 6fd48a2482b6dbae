"""Launch configurations of kernels: any of them gives the same, and a GPU without room is told so."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from bench.kernels import main
from bench.report.tables import kernels_markdown
from sam2_amg.errors import StartupError
from sam2_amg.kernels.attention import attention
from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.kernels.launch_configs import (
    HOPPER,
    SAFE,
    LaunchConfigs,
    launch_configs,
    require_shared_memory,
    using_launch_configs,
)
from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network.decoder import Kept
from sam2_amg.network.fp16x3_linear import to_fp16_pair
from sam2_amg.network.fused_upscaling import FusedUpscaling


def run_all(upscaling: FusedUpscaling, chosen: LaunchConfigs, fp16x3: bool) -> list[Tensor]:
    """What the kernels make of the same random numbers, with one set of launch configurations."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(DEVICE)

    dtype = torch.float32 if fp16x3 else torch.float16
    keys, shift = normal(1, 512, 256), normal(1, 64)
    folded, values = (0.1 * normal(1, 64, 256)).to(dtype), normal(1, 64, 256).to(dtype)
    queries, heads = normal(512, 128), normal(1, 8, 8, 16)
    q, k, v = normal(1, 70, 3, 2, 24).to(dtype).unbind(2)
    hyper, features = normal(1, 32, 3), (normal(1024, 4, 64).to(dtype), normal(1024, 4, 128).to(dtype))
    kept = Kept(*(torch.tensor([index], device=DEVICE) for index in (0, 2)))

    def in_memory(x: Tensor) -> Tensor:
        return torch.stack(to_fp16_pair(x), dim=-3) if fp16x3 else x.half()

    with using_launch_configs(chosen):
        assert launch_configs(DEVICE) is chosen
        scores = position_scores(queries, heads, not fp16x3)
        queries, heads = in_memory(queries), heads.to(dtype)
        vectors = normal(256), normal(256), normal(256)
        first = update_first(keys[0].to(dtype), vectors[0], queries, heads, values, *vectors[1:], 1e-5, fp16x3)
        second = first.clone()
        update_second(second, *scores, shift, folded, values, 1e-5, fp16x3)
        return [
            first,
            second,
            scores[0].float(),
            read_keys(in_memory(keys), queries, heads, folded, fp16x3),
            attention(q, k, v),
            upscaling.masks(in_memory(normal(1, 1024, 256)), hyper, *features, kept),
        ]


@pytest.mark.parametrize(("fp16x3", "tolerance"), [(True, 5e-6), (False, 2e-3)])
@torch.inference_mode()
def test_every_launch_gives_the_same(demo_model: SAM2Base, fp16x3: bool, tolerance: float) -> None:
    upscaling = FusedUpscaling(deepcopy(demo_model.sam_mask_decoder).to(DEVICE), fp16x3)
    for one, other in zip(*(run_all(upscaling, chosen, fp16x3) for chosen in (HOPPER, SAFE)), strict=True):
        assert one.shape == other.shape
        if one.ndim == 4 and one.dtype == torch.float16 and fp16x3:  # what is rounded up in one is less in the other
            one, other = (parts.float().sum(1) for parts in (one, other))
        assert (one - other).norm() <= tolerance * one.norm()


def test_a_gpu_without_room_is_refused() -> None:
    require_shared_memory(163 * 1024, "NVIDIA A100", fp16x3=True)
    require_shared_memory(99 * 1024, "NVIDIA L4", fp16x3=False)
    with pytest.raises(StartupError, match=r"L4 has 99 KiB .* need 148: give --fast --furious, or leave --fast out"):
        require_shared_memory(99 * 1024, "NVIDIA L4", fp16x3=True)
    with pytest.raises(StartupError, match=r"T4 has 64 KiB .* need 80: leave --fast --furious out"):
        require_shared_memory(64 * 1024, "NVIDIA T4", fp16x3=False)


def test_the_table_of_kernels_names_the_best_launch() -> None:
    name = {"kernel": "read", "form": "float16"}
    rows = [
        {**name, "launch": None, "ms": 0.2},
        {**name, "launch": {"BLOCK": 64, "num_warps": 8, "PARTS": 2}, "ms": None},
        {**name, "launch": {"BLOCK": 32, "num_warps": 4, "PARTS": 4}, "ms": 0.15},
        {**name, "launch": {"BLOCK": 16, "num_warps": 4, "PARTS": 1}, "ms": 0.3},
        {"kernel": "attention 8 x 8", "form": "float16, torch's", "launch": None, "ms": 0.1},
    ]
    host = {"device": "NVIDIA H200", "torch": "2.11.0", "python": "3.12"}
    page = kernels_markdown({"model": "large", "command": "c", "machine": host, "points": 128, "rows": rows})
    assert "| read | float16 | 0.200 | tiles of 32, 4 warps, 4 parts | 0.150 |" in page
    assert "| attention 8 x 8 | float16, torch's | 0.100 | - | - |" in page
    assert "| read | float16 | tiles of 64, 8 warps, 2 parts | - |" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_timing_kernels_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "there is no CUDA GPU here" in capsys.readouterr().err
