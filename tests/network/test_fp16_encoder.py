"""The encoder in float16 against sam2's in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import DEVICE
from torch import nn

from sam2_amg.kernels.fp16_linear import fp16_linear_gelu
from sam2_amg.network.fp16_encoder import Fp16Encoder, Fp16Linear, fp16_attention
from training.network import build


@pytest.mark.parametrize(
    ("images", "queries", "keys", "heads", "width"),
    [(3, 4, 16, 2, 72), (2, 16, 16, 2, 48), (2, 16, 64, 2, 48), (1, 256, 256, 1, 56), (1, 196, 196, 1, 96)],
)
@torch.inference_mode()
def test_attention_rounds_as_float16_does(images: int, queries: int, keys: int, heads: int, width: int) -> None:
    """Either kernel: operands and weights are rounded to 2^-12 of what they are, and errors add up at random."""
    random = torch.Generator().manual_seed(queries)
    q = torch.randn(images, queries, heads, width, generator=random).to(DEVICE).half()
    k, v = torch.randn(images, keys, 2, heads, width, generator=random).to(DEVICE).half().unbind(2)
    exact = F.scaled_dot_product_attention(*(x.double().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    found = fp16_attention(q, k, v)
    assert found.dtype == torch.float16
    assert found.shape == exact.shape
    assert 0 < (found - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize("with_gelu", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (130, 144, 70), (257, 64, 144), (520, 100, 130)], ids=str)
@torch.inference_mode()
def test_layers_round_once(shape: tuple[int, int, int], with_gelu: bool) -> None:
    """GELU's result alone, to float16; what is multiplied is float16 already."""
    torch.manual_seed(0)
    count, inputs, outputs = shape
    linear = nn.Linear(inputs, outputs)
    layer, rows = Fp16Linear(linear, with_gelu), torch.randn(count, inputs).half()
    exact = rows.double() @ linear.weight.half().double().T + linear.bias
    exact = F.gelu(exact) if with_gelu else exact
    norms = rows.double().norm(dim=1)[:, None] * linear.weight.double().norm(dim=1)
    for found in (layer(rows), layer.to(DEVICE)(rows.to(DEVICE)).cpu()):
        assert found.dtype == (torch.float16 if with_gelu else torch.float32)
        assert ((found - exact).abs() <= 2.0**-20 * norms + with_gelu * 2.0**-11 * exact.abs() + 1e-6).all()
    assert layer(rows.to(DEVICE).unflatten(0, (count, 1))).shape == (count, 1, outputs)


@pytest.mark.parametrize("shape", [(0, 8, 4), (1, 1, 1), (5, 3, 7), (130, 70, 144), (520, 100, 130)], ids=str)
@torch.inference_mode()
def test_gelu_behind_a_layer_in_one_kernel(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    count, inputs, outputs = shape
    layer, rows = Fp16Linear(nn.Linear(inputs, outputs), with_gelu=True), torch.randn(count, inputs).half()
    found = fp16_linear_gelu(rows.to(DEVICE), layer.weight.to(DEVICE), layer.bias.to(DEVICE)).cpu()
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, layer(rows), rtol=2.0**-10, atol=1e-6)


def test_what_does_not_fit_a_layer_is_refused() -> None:
    rows, weight, bias = torch.zeros(3, 8).half(), torch.zeros(8, 4).half(), torch.zeros(4)
    for wrong in ((rows, weight[:7], bias), (rows, weight, bias.half()), (rows.float(), weight, bias)):
        with pytest.raises(ValueError, match="rows, weights and bias do not fit together"):
            fp16_linear_gelu(*(each.to(DEVICE) for each in wrong))
    with pytest.raises(ValueError, match="contiguous"):
        fp16_linear_gelu(*(each.to(DEVICE) for each in (rows, weight.T.contiguous().T, bias)))


@torch.inference_mode()
def test_weights_are_not_kept_twice() -> None:
    """The trunk's large products are in float16, what is normalised and added is not."""
    encoder = Fp16Encoder(build(128).eval())
    types = {name: value.dtype for name, value in encoder.state_dict().items()}
    weights = [name for name in types if name.endswith(("weight", "product")) and "norm" not in name]
    assert {name for name in weights if types[name] == torch.float32} == {"trunk.patch.weight"}
    assert all(types[name] == torch.float32 for name in types if "norm" in name or name == "trunk.positions")


def test_another_neck_is_refused() -> None:
    model = build(128)
    model.image_encoder.neck.fuse_type = "avg"
    with pytest.raises(ValueError, match="written for SAM 2's neck"):
        Fp16Encoder(model)
