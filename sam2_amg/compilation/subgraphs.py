"""The network as static-shape subgraphs of tensors, which are compiled, captured as CUDA graphs and exported.

    encode(pixels)                       -> image embedding, high-resolution features; of one or several images
    prepare(those three)                 -> what all points of an image share, the fields of `SharedImage`
    attend(points, shared...)            -> predicted IoU, mask vectors, image tokens; for a fixed number of points
    upscale(tokens, vectors, features)   -> low-res logits; for a fixed number of points, if no kernel does it

`SubgraphShapes` specifies all input shapes. They do not depend on the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.network.encoder import ImageFeatures, PlainEncoder
from sam2_amg.network.folded_decoder import FoldedDecoder
from sam2_amg.network.image_tokens import SharedImage

Subgraph = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Subgraphs:
    """All subgraphs in any form: modules, compiled, captured or loaded from packages."""

    encode: Subgraph
    prepare: Subgraph
    attend: Subgraph
    upscale: Subgraph | None  # None if a kernel replaces it, whose shapes need not be static
    batched: Mapping[int, Subgraph] = field(default_factory=dict)  # encoders of several images, by their number

    def by_name(self) -> dict[str, Subgraph]:
        """All existing subgraphs, in the order of `SubgraphShapes.names`."""
        encoders = {batched_name(count): self.batched[count] for count in sorted(self.batched, reverse=True)}
        base = {name: getattr(self, name) for name in BASE_NAMES}
        return {**encoders, **{name: subgraph for name, subgraph in base.items() if subgraph is not None}}

    @staticmethod
    def named(subgraphs: Mapping[str, Subgraph]) -> Subgraphs:
        """Inverse of `by_name`."""
        encoders = {batch_of(name): subgraph for name, subgraph in subgraphs.items() if name not in BASE_NAMES}
        return Subgraphs(
            subgraphs["encode"], subgraphs["prepare"], subgraphs["attend"], subgraphs.get("upscale"), encoders
        )


BASE_NAMES = ("encode", "prepare", "attend", "upscale")


def batched_name(count: int) -> str:
    """The name of the encoder of `count` images."""
    return f"encode_{count}"


def batch_of(name: str) -> int:
    """How many images the encoder of this name takes."""
    return int(name.removeprefix("encode_"))


def encoder_sizes(batch_size: int) -> list[int]:
    """The numbers of images that encoders exist for, largest first: `batch_size`, and each power of two below it.

    Each encoder is compiled and takes memory. Any number up to `batch_size` is a sum of different sizes. torch.compile
    stops recompiling a function after 8 shapes, which no batch size up to `MOST_TOGETHER` reaches.
    """
    powers = (1 << exponent for exponent in range(batch_size.bit_length()))
    return sorted({batch_size, *powers}, reverse=True)


def reads_in_place(name: str) -> bool:
    """Whether the last inputs of a subgraph of this name are the outputs of the previous one."""
    return name == "attend"


def is_encoder(name: str) -> bool:
    """Whether a subgraph of this name encodes images."""
    return name.startswith("encode")


class Encode(nn.Module):
    """Normalised pixels, float32 [n, 3, S, S] -> [n, 256, S/16, S/16], [n, 32, S/4, S/4], [n, 64, S/8, S/8]."""

    def __init__(self, encoder: nn.Module) -> None:
        """`encoder` returns `ImageFeatures` for pixels."""
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The images' features."""
        features = self.encoder(pixels)
        return features.image_embedding.contiguous(), *(x.contiguous() for x in features.high_res_features)


class _OfDecoder(nn.Module):
    def __init__(self, decoder: FoldedDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        # registered as submodules, so that torch.export finds the weights
        self.mask_decoder = decoder.decoder
        self.prompt_encoder = decoder.model.sam_prompt_encoder


class Prepare(_OfDecoder):
    """The image's features -> the fields of `SharedImage`."""

    def forward(self, embedding: Tensor, s0: Tensor, s1: Tensor) -> tuple[Tensor, ...]:
        """Computes what all points of an image share."""
        shared = self.decoder.prepare(ImageFeatures(embedding, (s0, s1)))
        return tuple(tensor.contiguous() for tensor in shared.tensors())


class Attend(_OfDecoder):
    """Points, float32 [P, 2], and the fields of `SharedImage` -> [P, 3], [P, C/8, 3], image tokens [P, N, C]."""

    def forward(self, points: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
        """The transformer's output for these points."""
        attended = self.decoder.attend(SharedImage(*shared), points)
        return attended.predicted_iou, attended.hyper.contiguous(), attended.state


class Upscale(_OfDecoder):
    """Image tokens [P, N, C], mask vectors [P, C/8, 3] and the arranged features -> ([P, 3, 4h, 4w],)."""

    def forward(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor) -> tuple[Tensor, ...]:
        """Low-res logits of these points' masks."""
        return (self.decoder.upscaling(keys, hyper, children, grandchildren).contiguous(),)


@dataclass(frozen=True)
class SubgraphShapes:
    """Input shapes of all subgraphs, for compiling, exporting and checking packages. All inputs are float32."""

    encode: tuple[tuple[int, ...], ...]
    prepare: tuple[tuple[int, ...], ...]
    attend: tuple[tuple[int, ...], ...]
    upscale: tuple[tuple[int, ...], ...]  # () without that subgraph
    batch_size: int = 1  # maximum number of images encoded together

    @property
    def points(self) -> int:
        """How many points the transformer takes."""
        return self.attend[0][0]

    @property
    def names(self) -> list[str]:
        """The names of all existing subgraphs, in the order in which they are compiled or loaded."""
        encoders = [batched_name(count) for count in encoder_sizes(self.batch_size) if count > 1]
        return [*encoders, *(name for name in BASE_NAMES if getattr(self, name))]

    def of(self, name: str) -> tuple[tuple[int, ...], ...]:
        """The input shapes of a subgraph."""
        if name in BASE_NAMES:
            return getattr(self, name)
        return tuple((batch_of(name), *shape[1:]) for shape in self.encode)

    def examples(self, name: str, device: torch.device) -> tuple[Tensor, ...]:
        """Example inputs of a subgraph, all zeros."""
        return tuple(torch.zeros(shape, device=device) for shape in self.of(name))


def subgraph_shapes(image_size: int, points: int, upscaled: int | None, batch_size: int = 1) -> SubgraphShapes:
    """The shapes for a model with a square input of `image_size` pixels. All sizes of SAM 2.1 have the same channels.

    `attend` takes `points` points. `upscale` takes `upscaled` points; None leaves that subgraph out. Up to `batch_size`
    images are encoded together.
    """
    side = image_size // 16
    tokens = side * side
    features = (1, 256, side, side), (1, 32, 4 * side, 4 * side), (1, 64, 2 * side, 2 * side)
    by_head, of_upscaling = (8, tokens, 16), ((tokens, 4, 64), (tokens, 4, 128))
    shared = (tokens, 256), by_head, by_head, (8, 16, tokens), *of_upscaling
    upscale = () if upscaled is None else ((upscaled, tokens, 256), (upscaled, 32, 3), *of_upscaling)
    return SubgraphShapes(((1, 3, image_size, image_size),), features, ((points, 2), *shared), upscale, batch_size)


def plain_subgraphs(
    model: SAM2Base,
    decoder: FoldedDecoder,
    upscale: bool,
    encoder: nn.Module | None = None,
    batch_size: int = 1,
) -> Subgraphs:
    """The subgraphs as modules in evaluation mode, uncompiled; `upscale` selects the last one.

    `encoder` defaults to sam2's own.
    """
    last = Upscale(decoder).eval() if upscale else None
    encode = Encode(encoder or PlainEncoder(model)).eval()
    encoders = dict.fromkeys((count for count in encoder_sizes(batch_size) if count > 1), encode)
    return Subgraphs(encode, Prepare(decoder).eval(), Attend(decoder).eval(), last, encoders)


def map_subgraphs(change: Callable[[str, Subgraph], Subgraph], subgraphs: Subgraphs) -> Subgraphs:
    """Applies `change(name, subgraph)` to each existing subgraph."""
    return Subgraphs.named({name: change(name, subgraph) for name, subgraph in subgraphs.by_name().items()})
