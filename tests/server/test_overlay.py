"""The overlay."""

from __future__ import annotations

import io
import itertools

import numpy as np
import torch
from PIL import Image
from sam2.utils.amg import mask_to_rle_pytorch

from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.server.overlay import colour, encode_png, overlay


def record(mask: np.ndarray) -> MaskRecord:
    rle = mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    return {
        "segmentation": rle,
        "area": int(mask.sum()),
        "bbox": [],
        "predicted_iou": 1.0,
        "point_coords": [],
        "stability_score": 1.0,
        "crop_box": [],
    }


def square(size: int, low: int, high: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def test_nothing_is_drawn_without_masks() -> None:
    image = np.full((5, 7, 3), 99, np.uint8)
    assert np.array_equal(overlay(image, []), image)


def test_small_masks_lie_on_large_ones_whatever_their_order() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    large, small = record(square(20, 2, 18)), record(square(20, 8, 12))
    drawn = overlay(image, [small, large])
    assert np.array_equal(drawn, overlay(image, [large, small]))
    assert np.array_equal(drawn[0, 0], image[0, 0])  # outside
    assert drawn[2, 2].tolist() == drawn[8, 8].tolist() == [255, 255, 255]  # both outlines
    inside_large, inside_small = drawn[5, 5].astype(int), drawn[10, 10].astype(int)
    assert np.abs(inside_large - inside_small).max() > 60
    expected = 0.45 * 100 + 0.55 * np.array(colour(0))
    assert np.abs(inside_large - expected).max() <= 1


def test_masks_at_the_border_and_of_one_pixel() -> None:
    image = np.zeros((6, 6, 3), np.uint8)
    everything, pixel = square(6, 0, 6), square(6, 3, 4)
    drawn = overlay(image, [record(everything), record(pixel)])
    assert drawn[0, 0].tolist() != [255, 255, 255]  # the image's border is no outline
    assert drawn[3, 3].tolist() == [255, 255, 255]


def test_colours_are_stable_and_distinct() -> None:
    colours = [colour(i) for i in range(64)]
    assert colours == [colour(i) for i in range(64)]
    assert len(set(colours)) == 64
    for a, b in itertools.pairwise(colours):
        assert sum(abs(x - y) for x, y in zip(a, b, strict=True)) > 100


def test_png_is_lossless() -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 17, 3), np.uint8)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode_png(image)))), image)
