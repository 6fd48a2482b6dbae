"""Mask decoder: the interface of all variants, and sam2's own. `folded_decoder.py` has the fast one.

Call these three methods in order; `predict` calls the last two in a loop over points:

    prepared = decoder.prepare(features)          # once per image: everything that does not depend on the point
    attended = decoder.attend(prepared, points)   # the two-way transformer; gives the predicted IoU
    logits = decoder.predict_masks(attended, kept)  # low-res logits, only of the kept masks

Symbols in the shape comments: P points, M masks a point (3, or 1 without multimask output), C channels of the
transformer (256), h x w image tokens, n kept masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from sam2.modeling.sam.mask_decoder import MaskDecoder as Sam2MaskDecoder
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.precision import float32_convolutions


@dataclass(frozen=True)
class Kept:
    """Which of the P x M masks are kept: row (point) and column (mask) of each, both int64 [n], sorted by row."""

    point: Tensor
    mask: Tensor


def every_mask(predicted_iou: Tensor) -> Kept:
    """All masks of points whose predicted IoU is [P, M]."""
    return Kept(*torch.ones_like(predicted_iou).nonzero(as_tuple=True))


class Attended(Protocol):
    """The result of `attend`. Other fields are private to the decoder."""

    @property
    def predicted_iou(self) -> Tensor:
        """Float [P, M], in [0, 1]."""


class MaskDecoder(Protocol):
    """The interface. Intermediate results are private to the decoder, and the next `attend` may overwrite them."""

    @property
    def at_once(self) -> int | None:
        """Maximum number of points that `attend` takes; None for any number."""

    def prepare(self, features: ImageFeatures) -> Any:
        """Computes what all points of an image share."""

    def attend(self, prepared: Any, points: Tensor) -> Attended:
        """Runs the transformer for `points`, float [P, 2], (x, y) in pixels of the model's input."""

    def predict_masks(self, attended: Any, kept: Kept) -> Tensor:
        """Low-res logits of the kept masks, float [n, 4h, 4w]."""


class Predicted(NamedTuple):
    """A decoder's output for P points: predicted IoU [P, M], the kept masks, and their low-res logits."""

    predicted_iou: Tensor
    kept: Kept
    logits: Tensor


def predict(decoder: MaskDecoder, prepared: Any, points: Tensor, keep: Callable[[Tensor], Kept]) -> Predicted:
    """The masks of `points`, float [P, 2], for up to `decoder.at_once` points at a time, which bounds memory.

    `keep` selects masks by the predicted IoU [p, M] of p points.
    """
    parts = []
    for some in points.split(decoder.at_once or len(points)):
        attended = decoder.attend(prepared, some)
        predicted_iou = attended.predicted_iou.clone()  # before `keep` waits for the device
        kept = keep(predicted_iou)
        parts.append(Predicted(predicted_iou, kept, decoder.predict_masks(attended, kept)))
    if len(parts) == 1:
        return parts[0]
    starts = range(0, len(points), len(parts[0].predicted_iou))
    point = torch.cat([part.kept.point + start for part, start in zip(parts, starts, strict=True)])
    return Predicted(
        torch.cat([part.predicted_iou for part in parts]),
        Kept(point, torch.cat([part.kept.mask for part in parts])),
        torch.cat([part.logits for part in parts]),
    )


def embed_points(model: SAM2Base, points: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Embeds foreground points, one prompt each: float [P, 2] in (x, y) pixels of the model's input.

    `masks` are low-res logits [P, 1, 4h, 4w], which prompts have in addition. Returns the sparse embeddings [P, 2, C]
    (the point, and padding) and the dense one [P, C, h, w] (of the mask). Autocast is disabled, because float16 is too
    inaccurate for sines of large angles.
    """
    labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
    with torch.autocast(points.device.type, enabled=False):
        return model.sam_prompt_encoder(points=(points[:, None], labels), boxes=None, masks=masks)


@dataclass(frozen=True)
class _PlainAttended:
    predicted_iou: Tensor  # [P, M]
    low_res_logits: Tensor  # [P, M, 4h, 4w]


class PlainDecoder:
    """sam2's `MaskDecoder.forward`, unchanged and uncompiled: the reference for `FoldedDecoder`.

    It also does what sam2's generator can do and `FoldedDecoder` cannot. Without `multimask_output`, a point has one
    mask: that of the single-mask token, or the best of three if that is unstable. With `use_m2m`, each mask is decoded
    again with itself as a prompt.
    """

    def __init__(
        self,
        model: SAM2Base,
        multimask_output: bool = True,
        use_m2m: bool = False,
        at_once: int | None = None,
        mask_decoder: Sam2MaskDecoder | None = None,
    ) -> None:
        """Prompts are decoded up to `at_once` at a time. `mask_decoder` takes the place of the model's."""
        self.model = model
        self.mask_decoder = mask_decoder or model.sam_mask_decoder
        self.multimask_output = multimask_output
        self.use_m2m = use_m2m
        self.at_once = at_once

    def prepare(self, features: ImageFeatures) -> ImageFeatures:
        """Returns the features unchanged, because sam2 computes everything from them for each batch of points."""
        return features

    def attend(self, prepared: ImageFeatures, points: Tensor) -> _PlainAttended:
        """Runs the whole decoder for `points` (float [P, 2], (x, y) in pixels of the model's input)."""
        attended = self._decode(prepared, points, None, self.multimask_output)
        return self._refine(prepared, points, attended) if self.use_m2m else attended

    def predict_masks(self, attended: _PlainAttended, kept: Kept) -> Tensor:
        """Low-res logits of the kept masks, float [n, 4h, 4w]."""
        return attended.low_res_logits[kept.point, kept.mask]

    def _refine(self, prepared: ImageFeatures, points: Tensor, attended: _PlainAttended) -> _PlainAttended:
        """The masks decoded again, each from its point and itself, to one mask. Source: `refine_with_m2m` of sam2."""
        shape = attended.predicted_iou.shape
        masks = attended.low_res_logits.flatten(0, 1)[:, None].clamp(-32.0, 32.0)  # as sam2's predictor returns them
        points = points.repeat_interleave(shape[1], dim=0)
        some = self.at_once or len(points)
        parts = [
            self._decode(prepared, *prompts, multimask_output=False)
            for prompts in zip(points.split(some), masks.split(some), strict=True)
        ]
        iou, logits = (
            torch.cat(values)
            for values in zip(*((part.predicted_iou, part.low_res_logits) for part in parts), strict=True)
        )
        return _PlainAttended(iou.view(shape), logits.unflatten(0, shape)[:, :, 0])

    @float32_convolutions()
    def _decode(
        self, prepared: ImageFeatures, points: Tensor, masks: Tensor | None, multimask_output: bool
    ) -> _PlainAttended:
        """sam2's decoder for `points` [P, 2], each with its mask of `masks`, low-res logits [P, 1, 4h, 4w]."""
        sparse, dense = embed_points(self.model, points, masks)
        logits, iou, _, _ = self.mask_decoder(
            image_embeddings=prepared.image_embedding,
            image_pe=self.model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            repeat_image=len(points) > 1,
            high_res_features=list(prepared.high_res_features),
        )
        return _PlainAttended(iou, logits)
