"""Image encoder: pixels -> the features that the mask decoder reads."""

from __future__ import annotations

from dataclasses import dataclass

from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """What the decoder needs of one image, for a model whose input is S x S pixels.

    `image_embedding` is [1, 256, S/16, S/16]; `high_res_features` are [1, 32, S/4, S/4] and [1, 64, S/8, S/8].
    """

    image_embedding: Tensor
    high_res_features: tuple[Tensor, Tensor]


def encode(model: SAM2Base, pixels: Tensor) -> ImageFeatures:
    """Encodes normalised pixels, float [1, 3, S, S], as `SAM2ImagePredictor.set_image` does."""
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(pixels))
    if model.directly_add_no_mem_embed:
        features[-1] = features[-1] + model.no_mem_embed
    # [S*S/k, 1, C] -> [1, C, S/k, S/k]
    s0, s1, embedding = (x.permute(1, 2, 0).unflatten(2, size) for x, size in zip(features, sizes, strict=True))
    return ImageFeatures(embedding, (s0, s1))
