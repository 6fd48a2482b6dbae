"""Image tokens updated and read by kernels against plain torch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from typing import Any

import pytest
import torch
from helpers import DEVICE
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.kernels.image_attention import read_keys, update_first, update_second
from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network.folded_attention import FoldedTokens
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.fp16x3_image_tokens import Fp16x3ImageTokens, centres
from sam2_amg.network.fp16x3_linear import to_fp16_pair
from sam2_amg.network.image_tokens import PlainImageTokens, SharedImage, TokenUpdate
from sam2_amg.network.layer_norm import without_mean


def random_tokens(points: int, tokens: int, random: torch.Generator) -> FoldedTokens:
    heads = torch.randn(points, 8, tokens, 16, generator=random) * 0.5
    return FoldedTokens(heads.to(DEVICE), (torch.randn(points, 8 * tokens, 256, generator=random) * 0.1).to(DEVICE))


def random_update(points: int, tokens: int, random: torch.Generator) -> TokenUpdate:
    values = torch.randn(points, 8 * tokens, 256, generator=random).to(DEVICE)
    return TokenUpdate(random_tokens(points, tokens, random), values)


def random_image(pixels: int, random: torch.Generator) -> SharedImage:
    keys = torch.randn(pixels, 256, generator=random).to(DEVICE)
    queries = torch.randn(8, 16, pixels, generator=random).to(DEVICE)
    unused = torch.zeros(0, device=DEVICE)
    return SharedImage(keys, unused, unused, queries, unused, unused)


@pytest.mark.parametrize(("points", "tokens"), [(1, 8), (3, 8), (2, 7)])
@torch.inference_mode()
def test_fp16x3_products_are_as_exact_as_float32(demo_model: SAM2Base, points: int, tokens: int) -> None:
    """Both updates and both readings, against float64. Layer 2's rows have means above their deviation."""
    random = torch.Generator().manual_seed(points)
    image = random_image(1024, random)
    first, second = random_update(points, tokens, random), random_update(points, tokens, random)
    second = TokenUpdate(second.keys, second.values + 0.5)  # of each of eight heads
    queries, last = random_tokens(points, tokens, random), random_tokens(points, tokens, random)
    given = (image, first, queries, second, last)
    decoder = FoldedDecoder(deepcopy(demo_model).to(DEVICE))
    sides = [kind(decoder.model, decoder.pe, decoder.upscaling) for kind in (Fp16x3ImageTokens, PlainImageTokens)]
    answers = [run_through(side, *given) for side in sides]
    answers[0] = with_affine_parts(sides[0], centres(image.keys, sides[0].first_norm)[1], *answers[0])
    exact = PlainImageTokens(decoder.model.double(), decoder.pe.double(), decoder.upscaling)
    answers.append(run_through(exact, *map(doubled, given)))
    for found, plain, exact in zip(*answers, strict=True):
        assert found.shape == plain.shape
        assert max((x.double() - exact).norm() / exact.norm() for x in (found, plain)) < 5e-6


@pytest.mark.parametrize("tokens", [7, 8])
@torch.inference_mode()
def test_products_of_float16_are_near(tokens: int) -> None:
    """Without most of the second parts, as in mode furious: operands and answers are rounded to 2^-12."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=random) * scale).to(DEVICE)

    keys, centre, values = map(without_mean, (normal(2, 512, 256), normal(256), normal(2, 8 * tokens, 256)))
    folded, after = normal(2, 8 * tokens, 256, scale=0.1), normal(256)
    queries, heads = normal(512, 128), normal(2, 8, tokens, 16, scale=0.5)
    gain, shift, positions = 1 + normal(256, scale=0.2), normal(2, 8 * tokens), normal(512, 128)

    def answers(fp16x3: bool) -> list[torch.Tensor]:
        def operand(x: torch.Tensor) -> torch.Tensor:
            return x if fp16x3 else x.half()

        def in_memory(x: torch.Tensor) -> torch.Tensor:
            return torch.stack(to_fp16_pair(x), dim=-3) if fp16x3 else x.half()

        first = operand(keys[0]), centre, in_memory(queries), operand(heads), operand(values), gain, after
        context = read_keys(in_memory(keys), in_memory(queries), operand(heads), operand(folded), fp16x3)
        updated = in_memory(keys)
        scores = position_scores(positions, heads, not fp16x3)
        update_second(updated, *scores, shift, operand(folded), operand(values), 1e-5, fp16x3)
        return [update_first(*first, 1e-5, fp16x3), updated, context]

    def summed(parts: torch.Tensor) -> torch.Tensor:
        return parts.float().sum(1) if parts.ndim == 4 else parts

    for exact, near, dtype in zip(
        map(summed, answers(True)), answers(False), (torch.float16,) * 2 + (torch.float32,), strict=True
    ):
        assert near.dtype == dtype
        assert 1e-6 < (near - exact).norm() / exact.norm() < 2e-3
    pairs = torch.stack(to_fp16_pair(keys), dim=1)
    with pytest.raises(ValueError, match=r"contiguous float16 \(2, 2, 512, 256\), in a high and a low part"):
        read_keys(keys.half(), queries.half(), heads, folded, fp16x3=True)
    with pytest.raises(ValueError, match=r"vectors of prompt tokens must be contiguous and torch\.float16"):
        read_keys(keys.half(), queries.half(), heads, folded, fp16x3=False)
    with pytest.raises(ValueError, match=r"scores must be contiguous \(2, 8, 512, 8\), torch.float32"):
        update_second(pairs, normal(2, 8, 512, 7), shift, shift, folded, values, 1e-5, fp16x3=True)
    with pytest.raises(ValueError, match="steps must be contiguous"):
        update_second(pairs, normal(2, 8, 512, 8), shift[:, :1], shift, folded, values, 1e-5, fp16x3=True)


def run_through(
    side: PlainImageTokens,
    image: SharedImage,
    first: TokenUpdate,
    queries: FoldedTokens,
    second: TokenUpdate,
    last: FoldedTokens,
) -> tuple[torch.Tensor, ...]:
    keys_1, context_1 = side.first(image, first, queries)
    keys_2, context_2 = side.second(image, keys_1.clone(), second, last)
    return keys_1, context_1, keys_2, context_2


def with_affine_parts(
    side: PlainImageTokens,
    after: torch.Tensor,
    keys_1: torch.Tensor,
    context_1: torch.Tensor,
    keys_2: torch.Tensor,
    context_2: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """What `Fp16x3ImageTokens` answers, and what it leaves to its readers: see there."""
    first, second = side.first_norm, side.second_norm
    keys_1, keys_2 = (keys.float().sum(1) for keys in (keys_1, keys_2))  # of their parts
    return keys_1 + first.bias + after, context_1, keys_2 * second.weight + second.bias, context_2


def doubled(x: Any) -> Any:
    """The same tensors in float64, in dataclasses of whatever depth."""
    if isinstance(x, torch.Tensor):
        return x.double()
    return type(x)(*(doubled(getattr(x, field.name)) for field in fields(x)))


@torch.inference_mode()
def test_what_kernels_are_not_written_for_is_refused(demo_model: SAM2Base) -> None:
    random = torch.Generator().manual_seed(0)
    side = FoldedDecoder(deepcopy(demo_model).to(DEVICE), image_tokens=Fp16x3ImageTokens).image_tokens
    image, update, queries = random_image(1000, random), random_update(1, 8, random), random_tokens(1, 8, random)
    with pytest.raises(ValueError, match="1000 x 256 image tokens"):
        side.first(image, update, queries)
    image, update, queries = random_image(1024, random), random_update(1, 5, random), random_tokens(1, 5, random)
    with pytest.raises(ValueError, match="40 vectors"):
        side.first(image, update, queries)
