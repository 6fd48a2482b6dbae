"""Mode furious: its subgraphs, kernels interpreted where there is no GPU, against float32; and on a GPU, its masks."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from helpers import CPU, DEVICE, photograph, shares_with_partners
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from bench.harness.systems import MODES, modes_on
from bench.numerics import TENSORS, signal_to_noise, tensors_of
from sam2_amg.compilation.manifest import Build
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import build_generator, fill_in, static_shapes
from sam2_amg.modes.furious import furious_subgraphs
from sam2_amg.network import fp16_encoder
from sam2_amg.network.decoder import PlainDecoder
from sam2_amg.network.encoder import encode, torch_attention
from sam2_amg.network.fused_upscaling import FusedUpscaling
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.preprocess import Preprocess


def attention_by_torch(q: Tensor, k: Tensor, v: Tensor, to_float32: bool = False) -> Tensor:
    """The twin of our attention kernel, with its dtypes."""
    return torch_attention(*(x.float() for x in (q, k, v))).to(torch.float32 if to_float32 else q.dtype)


@torch.inference_mode()
def test_signal_to_noise_of_the_subgraphs(demo_model: SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """55 dB or more for everything that a subgraph answers; 35 is what masks need.

    On a CPU the encoder's attention is torch's: interpreted kernels take fifteen seconds here, and have tests of
    their own.
    """
    if DEVICE.type == "cpu":
        monkeypatch.setattr(fp16_encoder, "attention", attention_by_torch)
    plain, model = deepcopy(demo_model).to(DEVICE), deepcopy(demo_model).to(DEVICE)
    pixels = Preprocess(model.image_size, DEVICE)(photograph("dog"))
    points = torch.tensor([[100.0, 300.0], [256.5, 200.25]], device=DEVICE)
    expected = tensors_of(encode(plain, pixels), PlainDecoder(plain), points)
    subgraphs = furious_subgraphs(model, DEVICE)
    upscaling = FusedUpscaling(model.sam_mask_decoder, fp16x3=False)
    decoder = StaticDecoder(subgraphs, 2, upscaling.masks, upscaling.dtype)
    found = tensors_of(StaticEncoder(subgraphs)(pixels), decoder, points)
    for name, a, b in zip(TENSORS, expected, found, strict=True):
        decibels = signal_to_noise(a, b)
        assert decibels is not None
        assert decibels >= 55, f"{name}: {decibels:.1f} dB"


@torch.inference_mode()
def test_subgraphs_answer_what_their_shapes_say(demo_model: SAM2Base) -> None:
    """Float32 from subgraph to subgraph, and image tokens kept in float16."""
    model = deepcopy(demo_model).to(DEVICE)
    subgraphs = furious_subgraphs(model, DEVICE)
    assert subgraphs.upscale is None
    shapes = static_shapes(Mode.FURIOUS, model.image_size, GeneratorConfig(), torch.device("cuda"))
    shared = subgraphs.prepare(*shapes.examples("prepare", DEVICE))
    assert [tuple(x.shape) for x in shared] == list(shapes.attend[1:])
    assert all(x.dtype == torch.float32 and x.is_contiguous() for x in shared)
    iou, hyper, keys = subgraphs.attend(torch.zeros(1, 2, device=DEVICE), *shared)
    assert (iou.dtype, hyper.dtype, keys.dtype) == (torch.float32, torch.float32, torch.float16)


def test_a_cpu_is_refused(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    with pytest.raises(StartupError, match="--fast --furious needs a CUDA GPU, but the device is cpu; give --fast"):
        build_generator(demo_model, Mode.FURIOUS, demo_config, CPU)
    assert modes_on(CPU) == (Mode.AO, Mode.FAST)
    assert modes_on(torch.device("cuda")) == MODES


@pytest.mark.parametrize(
    ("side", "batch", "points"), [(32, None, 1024), (13, None, 256), (64, None, 1024), (33, None, 640), (32, 64, 128)]
)
def test_subgraphs_take_the_points_of_a_batch(side: int, batch: int | None, points: int) -> None:
    config = GeneratorConfig(points_per_side=side, points_per_batch=batch)
    shapes = static_shapes(Mode.FURIOUS, 512, config, torch.device("cuda"))
    assert shapes.attend[0] == (points, 2)
    build = Build(Path("weights.pt"), "demo", Mode.FURIOUS, torch.device("cuda"), shapes)
    assert build.command.endswith(f"--points_per_side {math.isqrt(points)}")
    again = GeneratorConfig(points_per_side=math.isqrt(points))
    assert static_shapes(Mode.FURIOUS, 512, again, torch.device("cuda")) == shapes


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["dog", "groceries"])
def test_furious_finds_masks_like_those_of_ao(
    furious: Generator, demo_model: SAM2Base, few_points: GeneratorConfig, name: str
) -> None:
    """Masks whose score is at a threshold may come and go: all but one in ten have a partner, on either side."""
    model = deepcopy(demo_model).to(DEVICE)
    expected = build_generator(model, Mode.AO, few_points, DEVICE).generate(photograph(name))
    found = furious.generate(photograph(name))
    assert min(len(found), len(expected)) >= 3
    assert min(shares_with_partners(found, expected, iou=0.98)) >= 0.9


@pytest.mark.parametrize("mode", [Mode.FAST, Mode.FURIOUS])
def test_packages_are_made_for_the_shapes_that_are_run(mode: Mode) -> None:
    """Whether defaults are filled in before or afterwards."""
    device = torch.device("cuda")
    for side in range(1, 129):
        config = GeneratorConfig(points_per_side=side)
        run = static_shapes(mode, 1024, fill_in(config, mode, device), device)
        assert static_shapes(mode, 1024, config, device) == run, side
