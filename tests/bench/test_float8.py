"""Float8 as `bench.float8` imitates it."""

from __future__ import annotations

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from bench.float8 import groups_of, hooked, in_float8

_LARGEST = 448  # of e4m3


def rounded(x: Tensor) -> Tensor:
    """Rows of float8, with a scale each that makes their largest number float8's."""
    scale = x.abs().amax(-1, keepdim=True) / _LARGEST
    return (x / scale).to(torch.float8_e4m3fn).float() * scale


def test_operands_are_rounded_row_by_row_and_only_within() -> None:
    layer, other = nn.Linear(64, 48), nn.Linear(64, 48)
    x = torch.randn(2, 3, 5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01, 100]).view(
        2, 1, 1, 1
    )
    exact, others = layer(x), other(x)
    with hooked([layer], in_float8):
        found = layer(x)
        assert torch.equal(other(x), others)
    assert torch.equal(layer(x), exact)
    torch.testing.assert_close(found, nn.functional.linear(rounded(x), rounded(layer.weight), layer.bias))
    noise = ((found - exact).norm() / (exact - layer.bias).norm()).item()
    assert 0.02 < noise < 0.06  # three bits of mantissa


def test_kinds_and_stages_are_all_of_the_blocks_linear_layers(demo_model: SAM2Base) -> None:
    groups = groups_of(demo_model)
    everything = set(groups.pop("all"))
    trunk = demo_model.image_encoder.trunk
    shortcuts = {block.proj for block in trunk.blocks if block.dim != block.dim_out}
    assert everything == {m for m in trunk.blocks.modules() if isinstance(m, nn.Linear)} - shortcuts
    stages = {name: layers for name, layers in groups.items() if name.startswith("stage")}
    assert [len(layers) // 4 for layers in stages.values()] == [1, 2, 6, 2]
    kinds = [layer for name, layers in groups.items() if name not in stages for layer in layers]
    for parts in (kinds, [layer for layers in stages.values() for layer in layers]):
        assert len(parts) == len(everything)
        assert set(parts) == everything
