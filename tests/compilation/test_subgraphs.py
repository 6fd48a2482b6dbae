"""The network in static-shape subgraphs: the same answers, in the shapes that are specified."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch._dynamo.config as dynamo
from helpers import CPU, DEVICE, photograph
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.compilation.cuda_graphs import Capturer, CudaGraph, warm_up_and_capture
from sam2_amg.compilation.static_decoder import StaticDecoder, StaticEncoder, StaticUpscaling
from sam2_amg.compilation.subgraphs import Subgraphs, encoder_sizes, map_subgraphs, plain_subgraphs, subgraph_shapes
from sam2_amg.config import MOST_TOGETHER
from sam2_amg.network.decoder import Kept, predict
from sam2_amg.network.encoder import encode
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.pipeline.preprocess import Preprocess


@torch.inference_mode()
def test_subgraphs_answer_as_the_folded_decoder(small_model: SAM2Base) -> None:
    """11 points, 4 at a time: the last batch is filled up, and kept masks are spread over all of them."""
    folded = FoldedDecoder(small_model)
    subgraphs = plain_subgraphs(small_model, folded, upscale=True)
    assert subgraphs.upscale is not None
    static = StaticDecoder(subgraphs, 4, StaticUpscaling(subgraphs.upscale, 3))
    pixels = Preprocess(small_model.image_size, CPU)(photograph("dog"))
    features = StaticEncoder(subgraphs)(pixels)
    points = torch.rand(11, 2, generator=torch.Generator().manual_seed(0)) * small_model.image_size
    expected = folded.attend(folded.prepare(encode(small_model, pixels)), points)
    for threshold in (float(expected.predicted_iou.median()), float(expected.predicted_iou.max()), 1.1):

        def keep(iou: torch.Tensor, threshold: float = threshold) -> Kept:
            return Kept(*(iou >= threshold - 1e-4).nonzero(as_tuple=True))

        found = predict(static, static.prepare(features), points, keep)
        torch.testing.assert_close(found.predicted_iou, expected.predicted_iou, rtol=0, atol=1e-5)
        kept = keep(expected.predicted_iou)
        assert torch.equal(found.kept.point, kept.point)
        assert torch.equal(found.kept.mask, kept.mask)
        torch.testing.assert_close(found.logits, folded.predict_masks(expected, kept), rtol=0, atol=5e-3)
    none = Kept(*torch.zeros(2, 0, dtype=torch.int64))
    again = predict(static, static.prepare(features), points[:2], lambda _: none)  # fewer points than a subgraph takes
    torch.testing.assert_close(again.predicted_iou, expected.predicted_iou[:2], rtol=0, atol=1e-5)
    assert again.logits.shape == (0, 64, 64)
    with pytest.raises(ValueError, match="takes 4 points at a time, not 5"):
        static.attend(static.prepare(features), points[:5])


@torch.inference_mode()
def test_shapes_are_those_of_the_plain_subgraphs(small_model: SAM2Base) -> None:
    subgraphs = plain_subgraphs(small_model, FoldedDecoder(small_model), upscale=True)
    shapes = subgraph_shapes(small_model.image_size, 3, 2)
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
def test_images_that_are_encoded_together(small_model: SAM2Base) -> None:
    plain = plain_subgraphs(small_model, FoldedDecoder(small_model), upscale=True, batch_size=2)
    shapes = subgraph_shapes(small_model.image_size, 2, 2, batch_size=2)
    assert list(plain.by_name()) == shapes.names == ["encode_2", "encode", "prepare", "attend", "upscale"]
    encoder = StaticEncoder(
        map_subgraphs(lambda name, subgraph: warm_up_and_capture(subgraph, shapes.examples(name, CPU)), plain)
    )
    pixels = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    alone = [encoder(one) for one in pixels.split(1)]
    for one, twin in zip(encoder(pixels).unbatch(), alone, strict=True):
        tensors = (one.image_embedding, *one.high_res_features), (twin.image_embedding, *twin.high_res_features)
        for a, b in zip(*tensors, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="take up to 2 images at a time, not 4"):
        encoder(pixels.repeat(2, 1, 1, 1))


def test_encoder_sizes_add_up_to_every_number() -> None:
    assert [encoder_sizes(most) for most in (1, 2, 3, 6)] == [[1], [2, 1], [3, 2, 1], [6, 4, 2, 1]]
    assert encoder_sizes(16) == [16, 8, 4, 2, 1]
    for most in range(1, MOST_TOGETHER + 1):
        sizes = encoder_sizes(most)
        assert len(sizes) <= dynamo.recompile_limit
        encoders = {size: partial(numbered, size=size) for size in sizes}
        encoder = StaticEncoder(Subgraphs(encoders.pop(1), numbered, numbered, None, encoders))
        for count in range(1, most + 1):
            images = torch.arange(count)[:, None, None, None]
            used.clear()
            found = encoder(images)
            assert used == sorted(set(used), reverse=True)  # each once, in the order of capture
            assert sum(used) == count
            for part, tensor in enumerate((found.image_embedding, *found.high_res_features)):
                assert torch.equal(tensor, images + part)


used: list[int] = []


def numbered(pixels: Tensor, size: int) -> tuple[Tensor, ...]:
    """An encoder of `size` images, whose features tell which image and which output they are."""
    assert len(pixels) == size
    used.append(size)
    return pixels, pixels + 1, pixels + 2


@pytest.mark.gpu
@torch.inference_mode()
def test_encoders_run_beside_other_graphs_in_memory_of_their_own() -> None:
    shapes = subgraph_shapes(256, 3, 2, batch_size=2)
    capturer, pools, streams = Capturer(shapes, DEVICE), {}, {}
    for name in shapes.names:
        graph = capturer.add(name, lambda *inputs: tuple(each + 1 for each in inputs), capturer.examples(name))
        assert isinstance(graph, CudaGraph)
        pools[name], streams[name] = graph.graph.pool(), graph.memory.stream.cuda_stream
    for shared in (pools, streams):
        assert shared["encode"] == shared["encode_2"]
        assert shared["prepare"] == shared["attend"] == shared["upscale"] != shared["encode"]


def test_other_shapes_are_refused() -> None:
    subgraph = warm_up_and_capture(lambda x: (x + 1,), [torch.zeros(1, 3, 4)])
    assert torch.equal(subgraph(torch.ones(1, 3, 4))[0], torch.full((1, 3, 4), 2.0))
    with pytest.raises(ValueError, match=r"compiled for \(1, 3, 4\), not for \(1, 3, 5\)"):
        subgraph(torch.ones(1, 3, 5))
