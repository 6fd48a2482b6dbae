"""Mode fast: its parts against their plain twins; and of it and furious, that nothing compiles once they are built."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import CPU, DEVICE, drawn_image, photograph
from pycocotools import mask as coco_mask
from sam2.modeling.sam2_base import SAM2Base
from torch import nn

from sam2_amg.compilation.cuda_graphs import warm_up_and_capture
from sam2_amg.compilation.jit import compile_subgraphs, count_compilations
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder, StaticUpscaling
from sam2_amg.compilation.subgraphs import map_subgraphs, plain_subgraphs, subgraph_shapes
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.kernels.fp16x3 import fp16x3_rows
from sam2_amg.modes.build import build_generator
from sam2_amg.network.decoder import Kept, predict
from sam2_amg.network.encoder import PlainEncoder, encode
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_linear import Fp16x3Linear, to_fp16_pair, use_fp16x3_linears
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.preprocess import Preprocess, PreprocessOnDevice


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (64, 144, 432), (2, 3, 576, 48)], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@torch.inference_mode()
def test_split_products_are_as_exact_as_float32(shape: tuple[int, ...], scale: float) -> None:
    torch.manual_seed(0)
    *rows, inputs, outputs = shape
    linear = nn.Linear(inputs, outputs, bias=scale != 1.0).to(DEVICE)
    x = torch.randn(*rows, inputs, device=DEVICE) * scale
    expected = deepcopy(linear).double()(x.double())
    found = Fp16x3Linear(linear)(x)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    norms = x.double().norm(dim=-1, keepdim=True) * linear.weight.double().norm(dim=1)
    assert ((found - expected).abs() <= 2.0**-20 * norms + 1e-7).all()
    halves = (x.half() @ linear.weight.half().T).double() + (0 if linear.bias is None else linear.bias)
    if x.numel() > 1000 and scale == 1.0:  # what it is for: products of float16 alone are far off
        assert (halves - expected).norm() > 50 * (found - expected).norm()


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (65, 48)], ids=str)
def test_rows_split_in_a_kernel_are_those_split_by_torch(shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 100
    hi, lo = to_fp16_pair(x)
    found = fp16x3_rows(x.to(DEVICE))
    assert torch.equal(found.cpu(), torch.cat([hi, lo, hi], dim=1))


def test_split_product_of_zeros() -> None:
    linear = nn.Linear(4, 3)
    nn.init.zeros_(linear.weight)
    assert torch.equal(Fp16x3Linear(linear)(torch.ones(2, 4)), linear.bias.expand(2, 3))


@torch.inference_mode()
def test_an_encoder_of_split_products(demo_model: SAM2Base) -> None:
    """Within 1e-5 of the features' size; every linear layer of the encoder is one of them."""
    model = deepcopy(demo_model)
    use_fp16x3_linears(model.image_encoder)
    assert not any(isinstance(module, nn.Linear) for module in model.image_encoder.modules())
    pixels = Preprocess(model.image_size, CPU)(photograph("dog"))
    expected, found = encode(demo_model, pixels), encode(model, pixels)
    error = (found.image_embedding - expected.image_embedding).norm() / expected.image_embedding.norm()
    assert 0 < error < 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (534, 800), (1200, 64), (2000, 1700)], ids=str)
def test_preprocessing_on_the_device_agrees(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Preprocess(512, CPU)(image)
    found = PreprocessOnDevice(512, DEVICE)(image)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_units_answer_as_the_folded_decoder(demo_model: SAM2Base) -> None:
    """11 points, 4 at a time: the last batch is filled up, and kept masks are spread over all of them."""
    folded = FoldedDecoder(demo_model)
    subgraphs = plain_subgraphs(demo_model, folded, upscale=True)
    assert subgraphs.upscale is not None
    fixed = StaticDecoder(subgraphs, 4, StaticUpscaling(subgraphs.upscale, 3))
    pixels = Preprocess(demo_model.image_size, CPU)(photograph("dog"))
    features = StaticEncoder(subgraphs)(pixels)
    points = torch.rand(11, 2, generator=torch.Generator().manual_seed(0)) * 512
    expected = folded.attend(folded.prepare(encode(demo_model, pixels)), points)
    for threshold in (float(expected.predicted_iou.median()), float(expected.predicted_iou.max()), 1.1):

        def keep(iou: torch.Tensor, threshold: float = threshold) -> Kept:
            return Kept(*(iou >= threshold - 1e-4).nonzero(as_tuple=True))

        found = predict(fixed, fixed.prepare(features), points, keep)
        torch.testing.assert_close(found.predicted_iou, expected.predicted_iou, rtol=0, atol=1e-5)
        kept = keep(expected.predicted_iou)
        assert torch.equal(found.kept.point, kept.point)
        assert torch.equal(found.kept.mask, kept.mask)
        torch.testing.assert_close(found.logits, folded.predict_masks(expected, kept), rtol=0, atol=5e-3)
    none = Kept(*torch.zeros(2, 0, dtype=torch.int64))
    again = predict(fixed, fixed.prepare(features), points[:2], lambda _: none)  # fewer points than a subgraph takes
    torch.testing.assert_close(again.predicted_iou, expected.predicted_iou[:2], rtol=0, atol=1e-5)
    assert again.logits.shape == (0, 128, 128)
    with pytest.raises(ValueError, match="takes 4 points at a time, not 5"):
        fixed.attend(fixed.prepare(features), points[:5])


@torch.inference_mode()
def test_shapes_are_those_of_the_plain_units(demo_model: SAM2Base) -> None:
    subgraphs = plain_subgraphs(demo_model, FoldedDecoder(demo_model), upscale=True)
    shapes = subgraph_shapes(demo_model.image_size, 3, 2)
    features = subgraphs.encode(*shapes.examples("encode", CPU))
    shared = subgraphs.prepare(*features)
    _, hyper, keys = subgraphs.attend(torch.zeros(3, 2), *shared)
    found = features, shared, (keys[:2], hyper[:2], *shared[4:])
    expected = shapes.prepare, shapes.attend[1:], shapes.upscale
    for tensors, shape in zip(found, expected, strict=True):
        assert tuple(tuple(x.shape) for x in tensors) == shape
    assert subgraph_shapes(1024, 128, None).attend[:2] == ((128, 2), (4096, 256))
    assert subgraph_shapes(1024, 128, None).upscale == ()


@torch.inference_mode()
def test_the_encoder_without_what_video_needs(demo_model: SAM2Base) -> None:
    pixels = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    found, expected = PlainEncoder(demo_model)(pixels), encode(demo_model, pixels)
    torch.testing.assert_close(found.image_embedding, expected.image_embedding, rtol=0, atol=1e-5)
    for one, twin in zip(found.high_res_features, expected.high_res_features, strict=True):
        torch.testing.assert_close(one, twin, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_images_that_are_encoded_together(demo_model: SAM2Base) -> None:
    plain = plain_subgraphs(demo_model, FoldedDecoder(demo_model), upscale=True, batch_size=2)
    shapes = subgraph_shapes(demo_model.image_size, 2, 2, batch_size=2)
    assert list(plain.by_name()) == shapes.names == ["encode_2", "encode", "prepare", "attend", "upscale"]
    encoder = StaticEncoder(
        map_subgraphs(lambda name, subgraph: warm_up_and_capture(subgraph, shapes.examples(name, CPU)), plain)
    )
    pixels = torch.randn(2, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    alone = [encoder(one) for one in pixels.split(1)]
    for one, twin in zip(encoder(pixels).unbatch(), alone, strict=True):
        tensors = (one.image_embedding, *one.high_res_features), (twin.image_embedding, *twin.high_res_features)
        for a, b in zip(*tensors, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    with pytest.raises(KeyError):
        encoder(pixels.repeat(2, 1, 1, 1))


@torch.inference_mode()
def test_without_a_compiler_it_says_so(demo_model: SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    subgraphs = plain_subgraphs(demo_model, FoldedDecoder(demo_model), upscale=True)
    with pytest.raises(StartupError, match="there is no g"):
        compile_subgraphs(subgraphs, subgraph_shapes(demo_model.image_size, 2, 2), CPU)


def test_other_shapes_are_refused() -> None:
    subgraph = warm_up_and_capture(lambda x: (x + 1,), [torch.zeros(1, 3, 4)])
    assert torch.equal(subgraph(torch.ones(1, 3, 4))[0], torch.full((1, 3, 4), 2.0))
    with pytest.raises(ValueError, match=r"compiled for \(1, 3, 4\), not for \(1, 3, 5\)"):
        subgraph(torch.ones(1, 3, 5))


@pytest.mark.parametrize("name", ["dog", "groceries"])
def test_fast_finds_what_ao_finds(
    fast: Generator, demo_model: SAM2Base, few_points: GeneratorConfig, name: str
) -> None:
    model = deepcopy(demo_model).to(DEVICE)
    expected = build_generator(model, Mode.AO, few_points, DEVICE).generate(photograph(name))
    found = fast.generate(photograph(name))
    assert len(found) == len(expected) >= 3
    for record, twin in zip(found, expected, strict=True):
        assert record["predicted_iou"] == pytest.approx(twin["predicted_iou"], abs=1e-4)
        size = record["segmentation"]["size"]
        runs = [coco_mask.frPyObjects(dict(one["segmentation"]), *size) for one in (record, twin)]
        assert coco_mask.iou([runs[0]], [runs[1]], [0])[0, 0] >= 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["dog", "groceries"])
def test_furious_finds_masks_like_those_of_ao(
    furious: Generator, demo_model: SAM2Base, few_points: GeneratorConfig, name: str
) -> None:
    """Masks whose score is at a threshold may come and go: all but one in ten have a partner, on either side."""
    model = deepcopy(demo_model).to(DEVICE)
    expected = build_generator(model, Mode.AO, few_points, DEVICE).generate(photograph(name))
    found = furious.generate(photograph(name))
    sides = [
        [coco_mask.frPyObjects(dict(one["segmentation"]), *one["segmentation"]["size"]) for one in records]
        for records in (found, expected)
    ]
    overlap = coco_mask.iou(*sides, [0] * len(expected))  # [found, expected]
    assert min(overlap.shape) >= 3
    for axis in (0, 1):
        assert (overlap.max(axis) >= 0.98).mean() >= 0.9


def test_no_size_compiles_anything(compiled: Generator) -> None:
    """60 sizes from one pixel to 2000, and none is met for the first time as far as the compiler is concerned."""
    random = np.random.default_rng(1)
    sides = random.integers(2, 160, (58, 2)).tolist()
    before = count_compilations()
    assert before >= 4
    for i, (height, width) in enumerate([(1, 1), *sides, (2000, 30)]):
        compiled.generate(drawn_image(height, width, seed=i))
    assert count_compilations() == before
