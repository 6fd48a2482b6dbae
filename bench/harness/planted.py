"""Planted decoder outputs: real work after the network, where no trained checkpoint of that size is at hand.

The network runs in full. Then its predicted IoUs are replaced, before anything is pruned by them, and its logits,
after. What is planted are the masks that SAM 2.1 large itself found in dog.jpg: each point gets the three smallest
masks that contain it, with steep edges and a little noise, and a predicted IoU that passes; where fewer than three
contain it, noise that does not pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sam2.utils.amg import rle_to_mask
from torch import Tensor, nn

from bench import DOG_MASKS
from sam2_amg.network.decoder import Attended, Kept, MaskDecoder
from sam2_amg.network.encoder import ImageFeatures

_STEEPNESS = 40.0  # logits from edge to edge of a soft mask
_NOISE = 0.8  # standard deviation of the noise on a planted mask's logits, about


@dataclass(frozen=True)
class Planted:
    """Outputs for a grid of points, row by row: `logits` float32 [P, 3, h, w], `predicted_iou` float32 [P, 3]."""

    logits: Tensor
    predicted_iou: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that they take and no server would."""
        return self.logits.nbytes + self.predicted_iou.nbytes


def plant(points_per_side: int, side: int, device: torch.device) -> Planted:
    """Outputs of a decoder whose low-res masks are `side` x `side`. Reproducible: random numbers come from a seed."""
    random = torch.Generator().manual_seed(0)
    masks = np.stack([rle_to_mask(rle) for rle in json.loads(DOG_MASKS.read_text()).values()])
    full = torch.from_numpy(masks).float()[:, None]  # [M, 1, H, W]
    soft = F.avg_pool2d(F.pad(F.interpolate(full, (side, side), mode="area"), (2,) * 4, mode="replicate"), 5, 1)
    steep = (soft[:, 0] - 0.5) * _STEEPNESS  # [M, h, w]
    by_area = full.flatten(1).sum(1).argsort()
    count = points_per_side**2
    cells = ((torch.arange(points_per_side) + 0.5) / points_per_side * side).long()
    noise = F.interpolate(torch.randn(count, 1, 16, 16, generator=random), (side, side), mode="bilinear")[:, 0]
    logits = torch.stack([3 * noise - 1] * 3, dim=1)  # [P, 3, h, w], to begin with: no mask
    iou = 0.3 + 0.45 * torch.rand(count, 3, generator=random)
    passing = 0.83 + 0.15 * torch.rand(count, 3, generator=random)
    for point in range(count):
        y, x = cells[point // points_per_side], cells[point % points_per_side]
        containing = [mask for mask in by_area.tolist() if steep[mask, y, x] > 0][:3]
        for slot, mask in enumerate(containing):
            logits[point, slot] = steep[mask] + _NOISE * noise[point]
            iou[point, slot] = passing[point, slot]
    return Planted(logits.to(device), iou.to(device))


@dataclass(frozen=True)
class _PlantedAttended:
    predicted_iou: Tensor
    attended: Attended
    rows: slice


class PlantedDecoder:
    """Runs another decoder in full, and answers what is planted."""

    def __init__(self, decoder: MaskDecoder, planted: Planted) -> None:
        self.decoder = decoder
        self.planted = planted
        self.next_point = 0
        self.at_once = decoder.at_once

    def prepare(self, features: ImageFeatures) -> object:
        """A new image: the points begin again."""
        self.next_point = 0
        return self.decoder.prepare(features)

    def attend(self, prepared: object, points: Tensor) -> _PlantedAttended:
        """Runs the transformer, and then plants the predicted IoU."""
        attended = self.decoder.attend(prepared, points)
        rows = slice(self.next_point, self.next_point + len(points))
        self.next_point = rows.stop
        return _PlantedAttended(self.planted.predicted_iou[rows], attended, rows)

    def predict_masks(self, attended: _PlantedAttended, kept: Kept) -> Tensor:
        """Upscales the kept masks, and then plants their logits."""
        self.decoder.predict_masks(attended.attended, kept)
        return self.planted.logits[attended.rows][kept.point, kept.mask]


@dataclass
class PlantingHooks:
    """Plants in a generator that calls `sam_mask_decoder` as sam2's does, or torchao's."""

    planted: Planted
    next_point: int = 0

    def attach_to_modules(self, image_encoder: nn.Module, mask_decoder: nn.Module) -> None:
        """From now on the decoder answers what is planted; an encoded image starts the points anew."""
        image_encoder.register_forward_hook(lambda *_: self.restart())
        mask_decoder.register_forward_hook(lambda _module, _arguments, outputs: self.replace(outputs))

    def attach_to_torchao(self, predictor: Any) -> None:
        """The same for torchao's predictor, around what it compiles."""
        set_image, predict_masks = predictor.set_image, predictor._predict_masks

        def restart_and_set_image(image: Any) -> None:
            self.restart()
            set_image(image)

        predictor.set_image = restart_and_set_image
        predictor._predict_masks = lambda *args, **kwargs: self.replace(predict_masks(*args, **kwargs))

    def restart(self) -> None:
        """A new image: the points begin again."""
        self.next_point = 0

    def replace(self, outputs: tuple) -> tuple:
        """A decoder's outputs, (logits, predicted IoU, ...), with what is planted in the place of these two."""
        logits = outputs[0]
        rows = slice(self.next_point, self.next_point + len(logits))
        self.next_point = rows.stop
        dtype = logits.dtype
        return self.planted.logits[rows].to(dtype), self.planted.predicted_iou[rows].to(dtype), *outputs[2:]
