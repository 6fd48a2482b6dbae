"""Numerics without masks: how far each mode's tensors are from float32 baseline's, for seeded weights of every size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from bench.harness.images import scene
from bench.harness.systems import modes_on
from bench.harness.weights import seeded_model
from sam2_amg.agreement import masks
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from sam2_amg.network.decoder import MaskDecoder, PlainDecoder, every_mask, predict
from sam2_amg.network.encoder import ImageFeatures, encode
from sam2_amg.network.precision import float32_convolutions
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.pipeline.preprocess import Preprocess
from sam2_amg.pipeline.prompts import PointGrids, to_model_input
from sam2_amg.postprocess.crops import Crop

TENSORS = ("image embedding", "high-res features 0", "high-res features 1", "low-res logits", "predicted IoU")


def signal_to_noise(reference: Tensor, value: Tensor) -> float | None:
    """Of `agreement.masks.signal_to_noise`, in dB; None where the tensors are equal."""
    decibels = masks.signal_to_noise(reference.cpu().numpy(), value.cpu().numpy())
    return None if decibels == math.inf else decibels


def tensors_of(features: ImageFeatures, decoder: MaskDecoder, points: Tensor) -> tuple[Tensor, ...]:
    """What `TENSORS` names: the features, and what a decoder makes of them for `points`, float [P, 2]."""
    predicted = predict(decoder, decoder.prepare(features), points, every_mask)
    return features.image_embedding, *features.high_res_features, predicted.logits, predicted.predicted_iou


def decibels(expected: Sequence[Tensor], found: Sequence[Tensor]) -> dict[str, float | None]:
    """Signal to noise of what `tensors_of` answers, by the names in `TENSORS`."""
    return {name: signal_to_noise(a, b) for name, a, b in zip(TENSORS, expected, found, strict=True)}


def points_on(image: NDArray[np.uint8], points_per_side: int, image_size: int) -> Tensor:
    """A grid of points on uint8 [H, W, 3], in pixels of the model's input, `image_size` a side. Float [P, 2]"""
    crop = Crop(0, 0, image.shape[1], image.shape[0], layer=0)
    grid = PointGrids(GeneratorConfig(points_per_side=points_per_side))
    return to_model_input(grid(crop), crop.size, image_size)


@torch.inference_mode()
@float32_convolutions()
def measure_numerics(
    sizes: Sequence[str], device: torch.device, points_per_side: int = 6, modes: Sequence[Mode] | None = None
) -> list[dict[str, Any]]:
    """A row for each size and mode: dB of every tensor, on one drawn scene and a grid of points.

    `modes` are all that the device runs, where None.
    """
    image = scene(0)
    config = GeneratorConfig(points_per_side=points_per_side, points_per_batch=points_per_side**2)
    rows = []
    for size in tqdm(sizes, unit="size", disable=None):
        model = seeded_model(size, device)
        points = points_on(image, points_per_side, model.image_size).to(device)
        pixels = Preprocess(model.image_size, device)(image)
        expected = tensors_of(encode(model, pixels), PlainDecoder(model), points)
        for mode in modes_on(device) if modes is None else modes:
            generator = build_generator(deepcopy(model), mode, config, device)  # which may convert its weights
            assert isinstance(generator, MaskGenerator)
            stages = generator.stages
            found = tensors_of(stages.encode(stages.preprocess(image)), stages.decoder, points)
            rows.append({"size": size, "mode": mode.value, "db": decibels(expected, found)})
    return rows
