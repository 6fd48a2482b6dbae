"""Scores of positions by a kernel against plain torch."""

from __future__ import annotations

import pytest
import torch
from helpers import DEVICE

from sam2_amg.kernels.position_scores import position_scores
from sam2_amg.network import folded_attention
from sam2_amg.network.folded_attention import FoldedTokens


def random_inputs(points: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(points)
    shapes = (512, 128), (points, 8, tokens, 16)
    positions, heads = (torch.randn(*shape, generator=random).to(DEVICE) for shape in shapes)
    return positions, heads


def twin(positions: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """[P, H, N, T], float64"""
    by_head = positions.unflatten(1, (8, 16)).permute(1, 2, 0).double()  # [H, D, N]
    scores = folded_attention.position_scores(FoldedTokens(heads.double(), heads), by_head)  # [P, H*T, N]
    return scores.unflatten(1, (8, -1)).mT


@pytest.mark.parametrize(("points", "tokens"), [(1, 8), (3, 7), (17, 8)])
@torch.inference_mode()
def test_scores_are_as_exact_as_float32_or_an_integer(points: int, tokens: int) -> None:
    given = random_inputs(points, tokens)
    exact = twin(*given)
    found, ones = position_scores(*given, integers=False)
    assert (found[..., :tokens].double() - exact).abs().max() < 2e-5
    assert (ones == 1).all()
    integers, steps = position_scores(*given, integers=True)
    assert integers.dtype == torch.int16
    steps = steps.unflatten(1, (8, 1, -1))  # [P, H, 1, T]
    assert ((integers[..., :tokens] * steps).double() - exact).abs().le(0.51 * steps).all()
    assert (integers[..., tokens:] == 0).all()


@torch.inference_mode()
def test_integers_hold_the_largest_score() -> None:
    """Where a position is the longest and in line with a token; and scores of all zeros."""
    positions, heads = random_inputs(2, 8)
    positions[5, :16] = 3 * heads[0, 0, 1] * positions.norm()
    heads[1] = 0
    integers, steps = position_scores(positions, heads, integers=True)
    assert integers[0, 0, 5, 1] >= 32765
    assert (integers[0, 0, 5, 1] * steps[0, 1]).item() == pytest.approx((positions[5, :16] @ heads[0, 0, 1]).item())
    assert (integers[1] == 0).all()


@torch.inference_mode()
def test_what_the_kernel_is_not_written_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"512 positions and tokens \(1, 8, 5, 16\)"):
        position_scores(*random_inputs(1, 5), integers=True)
    positions, heads = random_inputs(1, 8)
    with pytest.raises(ValueError, match="contiguous and float32"):
        position_scores(positions, heads.half(), integers=True)
