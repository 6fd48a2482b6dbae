"""Image encoder: pixels -> features for the mask decoder. sam2's own, and code shared by other variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from sam2.modeling.backbones.hieradet import MultiScaleAttention, do_pool
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageFeatures:
    """The features of n images, for a model whose input is S x S pixels. The decoder takes those of one image.

    `image_embedding` is [n, 256, S/16, S/16]; `high_res_features` are [n, 32, S/4, S/4] and [n, 64, S/8, S/8].
    """

    image_embedding: Tensor
    high_res_features: tuple[Tensor, Tensor]

    def clone(self) -> ImageFeatures:
        """A copy in separate memory."""
        s0, s1 = self.high_res_features
        return ImageFeatures(self.image_embedding.clone(), (s0.clone(), s1.clone()))

    def unbatch(self) -> list[ImageFeatures]:
        """The features of each image."""
        s0, s1 = (features.split(1) for features in self.high_res_features)
        embeddings = self.image_embedding.split(1)
        return [ImageFeatures(one, (a, b)) for one, a, b in zip(embeddings, s0, s1, strict=True)]


def encode(model: SAM2Base, pixels: Tensor) -> ImageFeatures:
    """Encodes normalised pixels, float [n, 3, S, S], as `SAM2ImagePredictor.set_image` does."""
    _, features, _, sizes = model._prepare_backbone_features(model.forward_image(pixels))
    if model.directly_add_no_mem_embed:
        features[-1] = features[-1] + model.no_mem_embed
    # [S*S/k, n, C] -> [n, C, S/k, S/k]
    s0, s1, embedding = (x.permute(1, 2, 0).unflatten(2, size) for x, size in zip(features, sizes, strict=True))
    return ImageFeatures(embedding, (s0, s1))


def require_sam2_encoder(model: SAM2Base) -> None:
    """Raises ValueError if the encoder's structure is not SAM 2's, which the replacements assume."""
    encoder, neck = model.image_encoder, model.image_encoder.neck
    built = encoder.scalp, sorted(neck.fpn_top_down_levels), neck.fpn_interp_model, neck.fuse_type
    if built != (1, [2, 3], "nearest", "sum") or not model.sam_mask_decoder.use_high_res_features:
        raise ValueError(f"the encoder is written for SAM 2's neck, not for {built}")


class PlainEncoder(nn.Module):
    """`encode` as a module with only the weights that an image needs, for packages.

    sam2's encoder also computes position encodings of the feature maps, 88 MiB for 1024 x 1024 pixels, which only video
    uses.
    """

    def __init__(self, model: SAM2Base) -> None:
        """Raises ValueError if the encoder's structure is not SAM 2's."""
        super().__init__()
        require_sam2_encoder(model)
        decoder = model.sam_mask_decoder
        self.trunk, self.convs = model.image_encoder.trunk, model.image_encoder.neck.convs
        self.conv_s0, self.conv_s1 = decoder.conv_s0, decoder.conv_s1
        self.no_memory = model.no_mem_embed if model.directly_add_no_mem_embed else None  # [1, 1, 256]

    def forward(self, pixels: Tensor) -> ImageFeatures:
        """Encodes normalised pixels, float32 [n, 3, S, S]."""
        ends = self.trunk(pixels)[::-1]  # from [n, C, S/32, S/32] to [n, C / 8, S/4, S/4]
        above, embedding, s1, s0 = (conv(x) for conv, x in zip(self.convs, ends, strict=True))  # 256 channels each
        embedding = embedding + F.interpolate(above, scale_factor=2.0, mode="nearest")
        if self.no_memory is not None:
            embedding = embedding + self.no_memory.mT[..., None]
        return ImageFeatures(embedding, (self.conv_s0(s0), self.conv_s1(s1)))


def torch_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of queries [B, L, H, D] to keys and values [B, M, H, D]: [B, L, H, D]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, H, L, D]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class LaidOutAttention(nn.Module):
    """sam2's `MultiScaleAttention` with another attention function, which takes strided queries, keys and values."""

    def __init__(self, attention: MultiScaleAttention, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """`attend` takes queries [B, L, H, D], and keys and values [B, M, H, D]; it returns [B, L, H, D]."""
        super().__init__()
        self.heads = attention.num_heads
        self.qkv, self.proj, self.q_pool = attention.qkv, attention.proj, attention.q_pool
        self.attend = attend

    def forward(self, x: Tensor) -> Tensor:
        """Attention within each image or window, [B, h, w, C] -> [B, h', w', C']; h' is h unless queries are pooled."""
        return self.proj(self.attended(x))

    def attended(self, x: Tensor) -> Tensor:
        """The same without the last layer."""
        size = x.shape[1:3]
        q, k, v = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, h*w, H, D]
        if self.q_pool:
            pooled = do_pool(q.flatten(2).unflatten(1, size), self.q_pool)  # [B, h', w', C']
            size = pooled.shape[1:3]
            q = pooled.contiguous().flatten(1, 2).unflatten(-1, (self.heads, -1))
        return self.attend(q, k, v).flatten(2).unflatten(1, size)
