"""The network in four units of fixed shapes, tensors in and out: what is compiled, captured in graphs and exported.

    encode(pixels)                       -> image embedding, high-resolution features
    prepare(those three)                 -> what all points of an image share, the fields of `SharedImage`
    attend(points, shared...)            -> predicted IoU, mask vectors, image tokens; so many points at a time
    upscale(tokens, vectors, features)   -> low-res logits; likewise, where no kernel does it

`UnitShapes` is the one specification of what goes in; nothing that arrives later changes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from sam2_amg.encoder import ImageFeatures, encode
from sam2_amg.folded_decoder import FoldedDecoder
from sam2_amg.image_side import SharedImage

Unit = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Units:
    """The four, in whatever form: plain modules, compiled, captured or loaded from packages."""

    encode: Unit
    prepare: Unit
    attend: Unit
    upscale: Unit | None  # None where a kernel takes its place, whose shapes need not be fixed


NAMES = tuple(field.name for field in fields(Units))


class Encode(nn.Module):
    """Normalised pixels, float32 [1, 3, S, S] -> [1, 256, S/16, S/16], [1, 32, S/4, S/4], [1, 64, S/8, S/8]."""

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The image's features."""
        features = encode(self.model, pixels)
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
    """Points, float32 [P, 2], and the fields of `SharedImage` -> [P, 3], [P, C/8, 3], [P, N, C] of dtype `storage`."""

    def __init__(self, decoder: FoldedDecoder, storage: torch.dtype) -> None:
        super().__init__(decoder)
        self.storage = storage

    def forward(self, points: Tensor, *shared: Tensor) -> tuple[Tensor, ...]:
        """The transformer's answer for these points."""
        attended = self.decoder.attend(SharedImage(*shared), points)
        return attended.predicted_iou, attended.hyper.contiguous(), attended.state.to(self.storage)


class Upscale(_OfDecoder):
    """Image tokens [P, N, C], mask vectors [P, C/8, 3] and the arranged features -> ([P, 3, 4h, 4w],)."""

    def forward(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor) -> tuple[Tensor, ...]:
        """Low-res logits of these points' masks."""
        return (self.decoder.upscaling(keys, hyper, children, grandchildren).contiguous(),)


@dataclass(frozen=True)
class UnitShapes:
    """Shapes of everything that goes into the units, all float32."""

    encode: tuple[tuple[int, ...], ...]
    prepare: tuple[tuple[int, ...], ...]
    attend: tuple[tuple[int, ...], ...]
    upscale: tuple[tuple[int, ...], ...]  # () without such a unit

    @property
    def points(self) -> int:
        """How many points `attend` takes at a time."""
        return self.attend[0][0]

    def examples(self, name: str, device: torch.device) -> tuple[Tensor, ...]:
        """Inputs of a unit, zeros."""
        return tuple(torch.zeros(shape, device=device) for shape in getattr(self, name))


def plain_units(model: SAM2Base, decoder: FoldedDecoder, upscale: bool, storage: torch.dtype = torch.float32) -> Units:
    """The units as modules in evaluation mode; the last one only if wanted. Image tokens are kept in `storage`."""
    last = Upscale(decoder).eval() if upscale else None
    return Units(Encode(model).eval(), Prepare(decoder).eval(), Attend(decoder, storage).eval(), last)


def shapes_of(units: Units, image_size: int, points: int, upscaled: int) -> UnitShapes:
    """The shapes that plain `units` take for a model's square input. Runs all but the last of them, once.

    `attend` takes `points` at a time, and `upscale` `upscaled` of them.
    """
    device = next(units.attend.parameters()).device  # type: ignore[attr-defined]
    pixels = torch.zeros(1, 3, image_size, image_size, device=device)
    features = units.encode(pixels)
    shared = units.prepare(*features)
    at = torch.zeros(points, 2, device=device)
    _, hyper, keys = units.attend(at, *shared)
    image = SharedImage(*shared)
    some = (keys[:1].expand(upscaled, -1, -1), hyper[:1].expand(upscaled, -1, -1), image.children, image.grandchildren)
    inputs = (pixels,), features, (at, *shared), some if units.upscale else ()
    return UnitShapes(*(tuple(tuple(x.shape) for x in group) for group in inputs))


def map_units(change: Callable[[str, Unit], Unit], units: Units) -> Units:
    """Each unit that is there changed, by its name."""
    found = ((name, getattr(units, name)) for name in NAMES)
    return Units(*(unit and change(name, unit) for name, unit in found))
