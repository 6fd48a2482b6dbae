"""The network in units of fixed shapes, tensors in and out: what is compiled, captured in graphs and exported.

    encode(pixels)                       -> image embedding, high-resolution features; of one image, or of several
    prepare(those three)                 -> what all points of an image share, the fields of `SharedImage`
    attend(points, shared...)            -> predicted IoU, mask vectors, image tokens; so many points at a time
    upscale(tokens, vectors, features)   -> low-res logits; likewise, where no kernel does it

`UnitShapes` is the one specification of what goes in; nothing that arrives later changes it.
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

Unit = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Units:
    """All of them, in whatever form: plain modules, compiled, captured or loaded from packages."""

    encode: Unit
    prepare: Unit
    attend: Unit
    upscale: Unit | None  # None where a kernel takes its place, whose shapes need not be fixed
    together: Mapping[int, Unit] = field(default_factory=dict)  # encoders of so many images at a time

    def by_name(self) -> dict[str, Unit]:
        """Those that there are, in the order of `UnitShapes.names`."""
        encoders = {together(count): self.together[count] for count in sorted(self.together, reverse=True)}
        alone = {name: getattr(self, name) for name in ALONE}
        return {**encoders, **{name: unit for name, unit in alone.items() if unit is not None}}

    @staticmethod
    def named(units: Mapping[str, Unit]) -> Units:
        """The opposite of `by_name`."""
        encoders = {count_of(name): unit for name, unit in units.items() if name not in ALONE}
        return Units(units["encode"], units["prepare"], units["attend"], units.get("upscale"), encoders)


ALONE = ("encode", "prepare", "attend", "upscale")


def together(count: int) -> str:
    """The name of the encoder of `count` images at a time."""
    return f"encode_{count}"


def count_of(name: str) -> int:
    """How many images the encoder of this name takes at a time."""
    return int(name.removeprefix("encode_"))


FED_BY_THE_ONE_BEFORE = ("prepare", "attend")  # whose last inputs are all that the unit before answers


class Encode(nn.Module):
    """Normalised pixels, float32 [n, 3, S, S] -> [n, 256, S/16, S/16], [n, 32, S/4, S/4], [n, 64, S/8, S/8]."""

    def __init__(self, encoder: nn.Module) -> None:
        """`encoder` answers pixels with `ImageFeatures`."""
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
        # registered, so that an export finds the weights where they belong
        self.mask_decoder = decoder.decoder
        self.prompt_encoder = decoder.model.sam_prompt_encoder


class Prepare(_OfDecoder):
    """The image's features -> the fields of `SharedImage`."""

    def forward(self, embedding: Tensor, s0: Tensor, s1: Tensor) -> tuple[Tensor, ...]:
        """What all points share."""
        shared = self.decoder.prepare(ImageFeatures(embedding, (s0, s1)))
        return tuple(tensor.contiguous() for tensor in shared.tensors())


class Attend(_OfDecoder):
    """Points, float32 [P, 2], and the fields of `SharedImage` -> [P, 3], [P, C/8, 3], image tokens [P, N, C]."""

    def forward(self, points: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
        """The transformer's answer for these points."""
        attended = self.decoder.attend(SharedImage(*shared), points)
        return attended.predicted_iou, attended.hyper.contiguous(), attended.state


class Upscale(_OfDecoder):
    """Image tokens [P, N, C], mask vectors [P, C/8, 3] and the arranged features -> ([P, 3, 4h, 4w],)."""

    def forward(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor) -> tuple[Tensor, ...]:
        """Low-res logits of these points' masks."""
        return (self.decoder.upscaling(keys, hyper, children, grandchildren).contiguous(),)


@dataclass(frozen=True)
class UnitShapes:
    """Shapes of everything that goes into the units, all float32: for compiling, exporting, and checking packages."""

    encode: tuple[tuple[int, ...], ...]
    prepare: tuple[tuple[int, ...], ...]
    attend: tuple[tuple[int, ...], ...]
    upscale: tuple[tuple[int, ...], ...]  # () without such a unit
    batch_size: int = 1  # most images that are encoded together

    @property
    def points(self) -> int:
        """How many points the transformer takes at a time."""
        return self.attend[0][0]

    @property
    def names(self) -> list[str]:
        """All units that there are, in the order in which they are made."""
        encoders = [together(count) for count in range(self.batch_size, 1, -1)]
        return [*encoders, *(name for name in ALONE if getattr(self, name))]

    def of(self, name: str) -> tuple[tuple[int, ...], ...]:
        """What goes into a unit."""
        if name in ALONE:
            return getattr(self, name)
        return tuple((count_of(name), *shape[1:]) for shape in self.encode)

    def examples(self, name: str, device: torch.device) -> tuple[Tensor, ...]:
        """Inputs of a unit, zeros."""
        return tuple(torch.zeros(shape, device=device) for shape in self.of(name))


def unit_shapes(image_size: int, points: int, upscaled: int | None, batch_size: int = 1) -> UnitShapes:
    """The shapes for a model with square input of `image_size` pixels; SAM 2.1 has the same channels in all sizes.

    `attend` takes `points` at a time, and `upscale`, where there is one, `upscaled` of them; up to `batch_size` images
    are encoded together.
    """
    side = image_size // 16
    tokens = side * side
    features = (1, 256, side, side), (1, 32, 4 * side, 4 * side), (1, 64, 2 * side, 2 * side)
    by_head, of_upscaling = (8, tokens, 16), ((tokens, 4, 64), (tokens, 4, 128))
    shared = (tokens, 256), by_head, by_head, (8, 16, tokens), *of_upscaling
    upscale = () if upscaled is None else ((upscaled, tokens, 256), (upscaled, 32, 3), *of_upscaling)
    return UnitShapes(((1, 3, image_size, image_size),), features, ((points, 2), *shared), upscale, batch_size)


def plain_units(
    model: SAM2Base,
    decoder: FoldedDecoder,
    upscale: bool,
    encoder: nn.Module | None = None,
    batch_size: int = 1,
) -> Units:
    """The units as modules in evaluation mode; the last one only if wanted.

    `encoder` is sam2's own where None.
    """
    last = Upscale(decoder).eval() if upscale else None
    encode = Encode(encoder or PlainEncoder(model)).eval()
    encoders = dict.fromkeys(range(2, batch_size + 1), encode)
    return Units(encode, Prepare(decoder).eval(), Attend(decoder).eval(), last, encoders)


def map_units(change: Callable[[str, Unit], Unit], units: Units) -> Units:
    """Each unit that is there changed, by its name."""
    return Units.named({name: change(name, unit) for name, unit in units.by_name().items()})
