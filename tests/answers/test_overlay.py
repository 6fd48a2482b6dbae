"""The overlay."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from answer_masks import HARD, Mask, discs, record_of, records_of
from PIL import Image

from sam2_amg.answers.lettering import inside_point
from sam2_amg.answers.options import Options
from sam2_amg.answers.overlay import colour, overlay
from sam2_amg.answers.palette import PALETTE
from sam2_amg.answers.png import encode_png
from sam2_amg.answers.runs import label_map, runs_by_label


def square(size: int, low: int, high: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def test_nothing_is_drawn_without_masks() -> None:
    image = np.full((5, 7, 3), 99, np.uint8)
    assert np.array_equal(overlay(image, []), image)


def test_small_masks_lie_on_large_ones_whatever_their_order() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    large, small = record_of(square(20, 2, 18)), record_of(square(20, 8, 12))
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
    drawn = overlay(image, [record_of(everything), record_of(pixel)])
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


def drawn_in_pixels(image: np.ndarray, masks: list[Mask]) -> np.ndarray:
    """The overlay of `POST /upload`, a whole mask at a time."""
    labels, outlines = np.zeros(image.shape[:2], int), np.zeros(image.shape[:2], bool)
    for label, mask in enumerate(sorted(masks, key=lambda mask: -mask.sum()), start=1):
        padded = np.pad(mask, 1, "edge")
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        labels[mask] = label
        outlines[mask] = ~inner[mask]
    colours = np.array([(0, 0, 0), *(colour(i) for i in range(len(masks)))], np.float32)
    blended = image * np.float32(0.45) + colours[labels] * np.float32(0.55)
    drawn = np.where(labels[:, :, None] > 0, blended.round(), image).astype(np.uint8)
    drawn[outlines] = 255
    return drawn


@pytest.mark.parametrize("masks", [[mask] for mask in HARD.values()], ids=list(HARD))
def test_hard_masks_are_drawn_as_ever(masks: list[Mask]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*masks[0].shape, 3), np.uint8)
    assert np.array_equal(overlay(image, records_of(masks)), drawn_in_pixels(image, masks))


def test_many_masks_are_drawn_as_ever() -> None:
    """In strips: the image is higher than one."""
    masks = discs(40, (301, 97))
    image = np.random.default_rng(0).integers(0, 256, (301, 97, 3), np.uint8)
    assert np.array_equal(overlay(image, records_of(masks)), drawn_in_pixels(image, masks))


def is_of_palette(pixel: np.ndarray) -> bool:
    return tuple(pixel.tolist()) in PALETTE


def test_opacity() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    records = [record_of(square(20, 2, 18))]
    for opacity in (0.0, 0.25, 1.0):
        drawn = overlay(image, records, Options(opacity=opacity))
        expected = (1 - opacity) * 100 + opacity * np.array(PALETTE[0])
        assert np.abs(drawn[10, 10] - expected).max() <= 0.5
        assert drawn[2, 2].tolist() == [255, 255, 255]
        assert drawn[0, 0].tolist() == [100, 100, 100]


def test_outlines_have_colours_and_nothing_is_filled() -> None:
    image = np.zeros((700, 700, 3), np.uint8)  # of a size in which lines are two pixels wide
    drawn = overlay(
        image, [record_of(square(700, 100, 600)), record_of(square(700, 300, 400))], Options(style="outline")
    )
    for low, high in ((100, 600), (300, 400)):
        assert is_of_palette(drawn[350, low])
        assert is_of_palette(drawn[350, low + 1])
        assert is_of_palette(drawn[low, 350])
        assert is_of_palette(drawn[high - 1, 350])
        for outside in (low - 1, low + 2, high, high - 3):
            assert not drawn[350, outside].any()


def test_boxes_are_those_of_the_masks() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10, 20:30] = mask[10:25, 29] = True
    drawn = overlay(np.zeros((40, 60, 3), np.uint8), [record_of(mask)], Options(style="boxes"))
    expected = np.zeros((40, 60), bool)
    expected[10:25, 20:30] = True
    expected[11:24, 21:29] = False
    assert np.array_equal(drawn.any(axis=2), expected)


def test_numbers_are_those_of_the_records() -> None:
    masks = [square(400, 210, 390), square(400, 10, 190)]
    image = np.zeros((400, 400, 3), np.uint8)
    plain, numbered = (
        overlay(image, records_of(masks), Options("compressed", 0, "fill", 0, ids)) for ids in (False, True)
    )
    changed = (plain != numbered).any(axis=2)
    first, second = changed[260:340, 260:340], changed[60:140, 60:140]
    assert first.sum() + second.sum() == changed.sum()
    one, two = first.nonzero()[1], second.nonzero()[1]
    assert np.ptp(one) < np.ptp(two)  # 1 is narrower than 2
    swapped = overlay(image, records_of(masks[::-1]), Options(opacity=0, ids=True))
    assert np.array_equal((swapped != plain).any(axis=2)[60:140, 60:140], first)


def test_numbers_at_the_border_are_whole() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    corner = np.zeros((100, 100), bool)
    corner[0, 0] = True
    written = overlay(image, [record_of(corner)], Options(opacity=0, ids=True))
    middle = overlay(image, [record_of(square(100, 50, 51))], Options(opacity=0, ids=True))
    assert abs(int((written > 128).sum()) - int((middle > 128).sum())) <= 20


def test_numbers_stand_inside_of_masks() -> None:
    for mask in [*HARD.values(), *discs(30, (40, 50))]:
        if mask.any():
            (runs,) = runs_by_label(label_map([record_of(mask)], mask.shape), 1, split=True)
            x, y = inside_point(runs, len(mask))
            assert mask[y, x]
    y, x = np.mgrid[:100, :100]
    disc = (y - 40) ** 2 + (x - 60) ** 2 < 30**2
    (runs,) = runs_by_label(label_map([record_of(disc)], (100, 100)), 1, split=True)
    assert inside_point(runs, 100) == pytest.approx((60, 40), abs=1)


def test_a_hidden_mask_has_no_number() -> None:
    image, mask = np.zeros((50, 50, 3), np.uint8), square(50, 10, 40)
    one, two = (overlay(image, [record_of(mask)] * count, Options(opacity=0, ids=True)) for count in (1, 2))
    assert not np.array_equal(one, two)  # the later one is visible
