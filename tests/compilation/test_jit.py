"""torch.compile on the subgraphs: it compiles each of them once, and nothing afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CPU, assert_all_but_equal, drawn_image, photograph
from sam2.modeling.sam2_base import SAM2Base
from small_model import small_demo_model
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config

from sam2_amg.compilation import jit
from sam2_amg.compilation.jit import compile_subgraphs, count_compilations
from sam2_amg.compilation.static_decoder import StaticEncoder
from sam2_amg.compilation.subgraphs import Subgraphs, SubgraphShapes, encoder_sizes, plain_subgraphs, subgraph_shapes
from sam2_amg.config import MOST_TOGETHER, GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.kernels.launch_configs import HOPPER, SAFE, LaunchConfigs, using_launch_configs
from sam2_amg.modes.build import build_generator
from sam2_amg.network.folded_decoder import FoldedDecoder


def of(model: SAM2Base) -> tuple[Subgraphs, SubgraphShapes]:
    """Its subgraphs, and their shapes for two points at a time."""
    return plain_subgraphs(model, FoldedDecoder(model), upscale=True), subgraph_shapes(model.image_size, 2, 2)


def little(*inputs: Tensor) -> tuple[Tensor, ...]:
    """In the place of a subgraph that takes long to compile or to trace."""
    return (inputs[0].flatten(),)


@torch.inference_mode()
def test_what_is_compiled_answers_the_same(small_model: SAM2Base) -> None:
    """Of the network, only what compiles in seconds: all of it is compiled for packages, and traced below."""
    plain, shapes = of(small_model)
    plain = replace(plain, encode=little, prepare=little, attend=little)
    before, said = count_compilations(), []
    with inductor_config.patch({"cpp.vec_isa_ok": False}):  # to find out what the processor can do takes long, too
        compiled = compile_subgraphs(plain, shapes, CPU, said.append)
    assert count_compilations() == before + 4
    assert [line for line in said if line.startswith("compiling ")][-4:] == [
        f"compiling {name} for cpu" for name in shapes.names
    ]
    random = torch.Generator().manual_seed(0)
    for name in shapes.names:
        inputs = [torch.randn(shape, generator=random) for shape in shapes.of(name)]
        found, expected = compiled.by_name()[name](*inputs), plain.by_name()[name](*inputs)
        for one, twin in zip(found, expected, strict=True):
            torch.testing.assert_close(one, twin, rtol=1e-4, atol=1e-4)
    assert count_compilations() == before + 4


@pytest.fixture
def from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Compiles what takes no time; how many graphs were in torch's cache, which is empty at first."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    subgraphs = Subgraphs(little, little, little, None)
    shapes = SubgraphShapes(((2, 3),), ((2, 3),), ((2, 3),), ())

    def compile_again(configs: LaunchConfigs = HOPPER, code: str = "a kernel") -> int:
        torch._dynamo.reset()
        monkeypatch.setattr(jit, "hash_code", lambda: code)
        before = counters["aot_autograd"]["autograd_cache_hit"]
        with using_launch_configs(configs), inductor_config.patch({"cpp.vec_isa_ok": False}):
            compile_subgraphs(subgraphs, shapes, CPU, lambda _: None)
        return counters["aot_autograd"]["autograd_cache_hit"] - before

    return compile_again


@torch.inference_mode()
def test_other_code_and_launch_configurations_are_compiled_anew(from_the_cache: Callable[..., int]) -> None:
    """torch's cache does not know our kernels, which it does not find in their operations."""
    changed = replace(HOPPER, read=SAFE.read)
    assert [from_the_cache(configs) for configs in (HOPPER, HOPPER, changed, changed, HOPPER)] == [0, 1, 0, 1, 1]
    assert [from_the_cache(HOPPER, "another") for _ in range(2)] == [0, 1]


@torch.inference_mode()
def test_code_of_other_threads_is_compiled_anew(from_the_cache: Callable[..., int]) -> None:
    threads = torch.get_num_threads()
    assert [from_the_cache() for _ in range(2)] == [0, 1]
    try:
        torch.set_num_threads(threads + 1)
        assert from_the_cache() == 0
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def test_processes_that_import_torch_elsewhere_find_what_others_compiled(
    from_the_cache: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica imports torch from another module than a server does."""
    assert from_the_cache() == 0
    monkeypatch.setattr(sys, "modules", {"first": SimpleNamespace(torch=torch), **sys.modules})
    assert from_the_cache() == 1


@pytest.mark.parametrize("folder", ["/proc", "/dev/null/below"])
def test_a_cache_that_takes_no_files(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
    shapes = SubgraphShapes(((2, 3),), ((2, 3),), ((2, 3),), ())
    with pytest.raises(StartupError, match=rf"cache in {folder} \(.*\); choose another folder with --compile_cache"):
        compile_subgraphs(Subgraphs(little, little, little, None), shapes, CPU, lambda _: None)


class Scaled(nn.Module):
    """A layer that has a constant of its own, as layers with emulated products have."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x * self.scale,)


@torch.inference_mode()
def test_many_models_are_compiled_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than torch compiles of one module by default."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    shapes = SubgraphShapes(((2, 3),), ((2, 3),), ((2, 3),), ())
    for i in range(10):
        subgraphs = compile_subgraphs(Subgraphs(*[Scaled(i + 0.5)] * 3, None), shapes, CPU, lambda _: None)
        assert subgraphs.attend(torch.ones(2, 3))[0][0, 0] == i + 0.5
    torch.compiler.reset()


def test_no_size_or_parameter_compiles_anything(demo_config: GeneratorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 sizes from one pixel to 2000, and none is met for the first time as far as the compiler is concerned. Neither
    are parameters of a call.

    It only traces here: what it makes of the whole network would take minutes, and has no say in when it is called.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = small_demo_model(128)
    config = replace(demo_config, points_per_side=3, pred_iou_thresh=0.0)
    before = count_compilations()
    generator = build_generator(deepcopy(model), Mode.FAST, config, CPU)
    built = count_compilations()
    assert built == before + 4
    sides = np.random.default_rng(1).integers(2, 160, (28, 2)).tolist()
    for i, (height, width) in enumerate([(1, 1), *sides, (2000, 30)]):
        generator.generate(drawn_image(height, width, seed=i))
    for changes in (
        {"points_per_side": 1},
        {"points_per_side": 5, "points_per_batch": 3},
        {"crop_n_layers": 1, "mask_threshold": 1.0, "box_nms_thresh": 0.0},
        {"point_grids": (((0.5, 0.5), (0.1, 0.9)),), "min_mask_region_area": 9},
        {"use_m2m": True},
        {"multimask_output": False},
    ):
        generator.generate(drawn_image(30, 40), replace(generator.config, **changes))
    assert count_compilations() == built
    expected = build_generator(model, Mode.AO, config, CPU).generate(photograph("dog"))
    assert len(expected) >= 3
    assert_all_but_equal(generator.generate(photograph("dog")), expected)


@pytest.mark.slow
@torch.inference_mode()
def test_no_number_of_images_compiles_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the largest batch size; and each image has the features that it has alone. The compiler only traces.

    Faster: `test_encoder_sizes_add_up_to_every_number` and `test_images_that_are_encoded_together`.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()  # a server begins with nothing traced; there is a limit of shapes
    model = small_demo_model(64)
    plain = plain_subgraphs(model, FoldedDecoder(model), upscale=True, batch_size=MOST_TOGETHER)
    plain = replace(plain, prepare=little, attend=little, upscale=little)
    before = count_compilations()
    compiled = compile_subgraphs(plain, subgraph_shapes(64, 2, 2, MOST_TOGETHER), CPU)
    built = count_compilations()
    assert built == before + 3 + len(encoder_sizes(MOST_TOGETHER))
    encoder = StaticEncoder(compiled)
    pixels = torch.randn(MOST_TOGETHER, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alone = [encoder(one) for one in pixels.split(1)]
    for count in (2, 7, MOST_TOGETHER - 1, MOST_TOGETHER):
        for features, twin in zip(encoder(pixels[:count]).unbatch(), alone[:count], strict=True):
            tensors = (features.image_embedding, *features.high_res_features)
            for one, other in zip(tensors, (twin.image_embedding, *twin.high_res_features), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert count_compilations() == built


@torch.inference_mode()
def test_without_a_compiler_it_says_so(small_model: SAM2Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupError, match=r"g\+\+ is missing"):
        compile_subgraphs(*of(small_model), CPU)


@torch.inference_mode()
def test_what_cannot_be_compiled_is_an_error(small_model: SAM2Base) -> None:
    def encode(pixels: Tensor) -> tuple[Tensor, ...]:
        return (pixels + 1,) if pixels.sum() > 0 else (pixels,)  # the compiler cannot know

    plain, shapes = of(small_model)
    with pytest.raises(StartupError, match=r"--fast cannot be compiled on this machine \(.*\); leave it out"):
        compile_subgraphs(replace(plain, encode=encode), shapes, CPU)
