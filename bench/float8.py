"""Whether the image encoder's linear layers would bear float8: signal to noise with some of them so, the rest float32.

    python -m bench.float8                                       the demo model
    python -m bench.float8 --model_type large --weights seeded

Operands are rounded to e4m3, scaled row by row (weights by output channel), as those of torchao's dynamic float8 are,
by its own imitation, which any device runs. All else stays float32, where torchao's layers take and give bfloat16 on a
GPU: what is measured is the least noise that float8 makes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torchao.quantization import PerRow
from torchao.quantization.qat import FakeQuantizedLinear, Float8FakeQuantizeConfig
from tqdm import tqdm

from bench.harness.arguments import model_parser, model_result, parse_model
from bench.harness.images import scene
from bench.harness.weights import get_model
from bench.numerics import decibels, points_on, tensors_of
from bench.report.pages import write
from sam2_amg.network.decoder import PlainDecoder
from sam2_amg.network.encoder import encode
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.preprocess import Preprocess

_KINDS = {
    "attn.qkv": "queries, keys and values",
    "attn.proj": "attention's last",
    "mlp.layers.0": "MLP's first",
    "mlp.layers.1": "MLP's second",
}
_FLOAT8 = Float8FakeQuantizeConfig(torch.float8_e4m3fn, PerRow())


def groups_of(model: SAM2Base) -> dict[str, list[nn.Linear]]:
    """Linear layers of the trunk's blocks: all, those of each kind, and those of each stage."""
    trunk = model.image_encoder.trunk
    groups: dict[str, list[nn.Linear]] = {"all": []}
    for index, block in enumerate(trunk.blocks):
        stage = sum(index > end for end in trunk.stage_ends) + 1
        for name, kind in _KINDS.items():
            linear = block.get_submodule(name)
            for group in ("all", kind, f"stage {stage}"):
                groups.setdefault(group, []).append(linear)
    return groups


@contextmanager
def hooked(
    layers: list[nn.Linear], hook: Callable[[nn.Linear, tuple[Tensor], Tensor], Tensor | None]
) -> Iterator[None]:
    """Within it `hook` sees what these layers read and answer, and may answer something else."""
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def in_float8(layer: nn.Linear, read: tuple[Tensor], _: Tensor) -> Tensor:
    """What the layer answers with operands of float8."""
    return FakeQuantizedLinear.from_linear(layer, _FLOAT8, _FLOAT8)(read[0])


@torch.inference_mode()
@float32_convolutions()
def measure(model: SAM2Base, device: torch.device, points_per_side: int = 6) -> list[dict[str, Any]]:
    """A row for each group of layers: dB of every tensor, on one drawn scene and a grid of points, and the group's
    share of the multiplications in the trunk's linear layers."""
    image = scene(0)
    points = points_on(image, points_per_side, model.image_size).to(device)
    pixels, decoder, groups = Preprocess(model.image_size, device)(image), PlainDecoder(model), groups_of(model)
    work: dict[nn.Linear, int] = {}

    def count(layer: nn.Linear, read: tuple[Tensor], _: Tensor) -> None:
        work[layer] = read[0].numel() * layer.out_features

    with hooked(groups["all"], count):
        expected = tensors_of(encode(model, pixels), decoder, points)
    rows = []
    for group, layers in tqdm(groups.items(), unit="group", disable=None):
        with hooked(layers, in_float8):
            found = tensors_of(encode(model, pixels), decoder, points)
        share = sum(work[layer] for layer in layers) / sum(work.values())
        rows.append({"layers": group, "share": share, "db": decibels(expected, found)})
    return rows


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = model_parser("float8", __doc__)
    args = parse_model(parser, arguments)
    device = torch.device(args.device)
    result = {
        **model_result("float8", args, arguments),
        "rows": measure(get_model(args.weights, args.checkpoint_dir, args.model_type, device), device),
    }
    write(result, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
