"""Encoder and mask decoder on static-shape subgraphs. Points are padded to the fixed number that a subgraph takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2_amg.compilation.subgraphs import Subgraph, Subgraphs
from sam2_amg.network.decoder import Kept
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.image_tokens import SharedImage
from sam2_amg.network.upscaling import square_side


class StaticEncoder:
    """The image encoder, with a subgraph for each of `encoder_sizes`.

    Each call may overwrite the output of the one before.
    """

    def __init__(self, subgraphs: Subgraphs) -> None:
        self._by_size = {1: subgraphs.encode, **subgraphs.batched}
        self._sizes = sorted(self._by_size, reverse=True)

    def __call__(self, pixels: Tensor) -> ImageFeatures:
        """Encodes normalised pixels, float32 [n, 3, S, S], by the subgraphs whose sizes add up to n; none is padded.

        Raises ValueError for more images than the largest subgraph takes.
        """
        if len(pixels) > self._sizes[0]:
            raise ValueError(f"the subgraphs take up to {self._sizes[0]} images at a time, not {len(pixels)}")
        parts = []
        # The largest comes first, in the order of capture: a graph may overwrite the output of one captured later.
        for size in self._sizes:
            if size <= len(pixels):
                parts.append(self._by_size[size](pixels[:size]))
                pixels = pixels[size:]
        embedding, s0, s1 = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        return ImageFeatures(embedding, (s0, s1))


@dataclass(frozen=True)
class StaticAttended:
    """The transformer's output for P points, and the inputs of upscaling."""

    predicted_iou: Tensor  # [P, 3]
    hyper: Tensor  # [P, C/8, 3]
    keys: Tensor  # [P, N, C]
    children: Tensor  # high-resolution features, from `LinearUpscaling.arrange`
    grandchildren: Tensor


class StaticUpscaling:
    """Masks of kept points, with a subgraph that takes exactly `at_once` points."""

    def __init__(self, subgraph: Subgraph, at_once: int) -> None:
        self.subgraph = subgraph
        self.at_once = at_once

    def __call__(self, keys: Tensor, hyper: Tensor, children: Tensor, grandchildren: Tensor, kept: Kept) -> Tensor:
        """Low-res logits of kept masks, float32 [n, 4h, 4w]; see `FusedUpscaling.masks`."""
        points, row = kept.point.unique(return_inverse=True)  # [U], [n]
        side = 4 * square_side(keys.shape[1])
        logits = keys.new_empty(len(kept.point), side, side, dtype=torch.float32)
        for start in range(0, len(points), self.at_once):
            some = points[start : start + self.at_once]
            some = F.pad(some, (0, self.at_once - len(some)))
            (masks,) = self.subgraph(keys[some], hyper[some], children, grandchildren)
            here = ((row >= start) & (row < start + self.at_once)).nonzero()[:, 0]
            logits[here] = masks[row[here] - start, kept.mask[here]].float()
        return logits


class StaticDecoder:
    """`FoldedDecoder` on subgraphs that take a fixed number of points.

    The result of `attend` is valid until `prepare` or `attend` runs again.
    """

    def __init__(
        self,
        subgraphs: Subgraphs,
        at_once: int,
        upscale: Callable[..., Tensor],
        feature_dtype: torch.dtype = torch.float32,
    ) -> None:
        """`subgraphs.attend` takes `at_once` points; `upscale` has the signature of `StaticUpscaling.__call__`.

        It takes high-resolution features of `feature_dtype`.
        """
        self.subgraphs = subgraphs
        self.at_once = at_once
        self.upscale = upscale
        self.feature_dtype = feature_dtype

    def prepare(self, features: ImageFeatures) -> SharedImage:
        """Computes what all points of an image share."""
        return SharedImage(*self.subgraphs.prepare(features.image_embedding, *features.high_res_features))

    def attend(self, prepared: SharedImage, points: Tensor) -> StaticAttended:
        """Runs the transformer for up to `at_once` `points` (float [P, 2], (x, y) in pixels of the model's input).

        Raises ValueError for more.
        """
        count, missing = len(points), self.at_once - len(points)
        if missing < 0:
            raise ValueError(f"the subgraph takes {self.at_once} points at a time, not {count}")
        padded = F.pad(points, (0, 0, 0, missing)) if missing else points
        iou, hyper, keys = self.subgraphs.attend(padded.contiguous(), *prepared.tensors())
        # rounded here, so that this is queued before the host waits for predicted IoU
        features = (x.to(self.feature_dtype) for x in (prepared.children, prepared.grandchildren))
        return StaticAttended(iou[:count], hyper[:count], keys[:count], *features)

    def predict_masks(self, attended: StaticAttended, kept: Kept) -> Tensor:
        """Low-res logits of the kept masks, float32 [n, 4h, 4w]; only their points are upscaled."""
        return self.upscale(attended.keys, attended.hyper, attended.children, attended.grandchildren, kept)
