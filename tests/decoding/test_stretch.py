"""What becomes of samples that use a part of their range."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import drawn_image
from numpy.typing import NDArray

from bench.harness.image_bombs import encoded
from sam2_amg.config import Limits
from sam2_amg.decoding import STRETCHES
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.decoding.stretch import range_of, scale_table

DARK = drawn_image(70, 90)[:, :, 0].astype(np.uint16) * 9 + 700  # 12 bits in a file of 16
LIMITS = Limits()


def stretched(samples: NDArray, stretch: str | None) -> NDArray[np.uint8]:
    """As NumPy computes it."""
    match stretch:
        case None:
            low, high = 0, np.iinfo(samples.dtype).max
        case "minmax":
            low, high = int(samples.min()), int(samples.max())
        case _:
            low, high = np.percentile(samples, (2, 98), method="inverted_cdf").astype(int)
    scaled = (samples.astype(float).clip(low, high) - low) * 255 / (high - low)
    return np.floor(scaled + 0.5).astype(np.uint8)


@pytest.mark.parametrize("stretch", [None, *STRETCHES])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey(kind: str, stretch: str | None) -> None:
    decoded = decode_image(encoded(DARK, kind), LIMITS, stretch)
    assert np.array_equal(decoded, np.repeat(stretched(DARK, stretch)[:, :, None], 3, 2))
    assert (decoded.max() > 200) == (stretch is not None)


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_eight_bits_are_stretched_over_all_bands(kind: str, stretch: str) -> None:
    data = encoded(drawn_image(700, 450) // 3 + 40, kind)
    plain = decode_image(data, LIMITS)
    assert np.array_equal(decode_image(data, LIMITS, stretch), stretched(plain, stretch))


@pytest.mark.parametrize("stretch", STRETCHES)
def test_a_picture_of_one_value_stays_as_it_is(stretch: str) -> None:
    assert decode_image(encoded(np.full((4, 5), 257 * 9, np.uint16), "PNG"), LIMITS, stretch).max() == 9
    assert decode_image(encoded(np.full((4, 5, 3), 9, np.uint8), "PNG"), LIMITS, stretch).max() == 9


def test_without_stretching_all_values_are_scaled_to_the_nearest() -> None:
    values = np.arange(65536)
    assert np.array_equal(scale_table(65536, 0, 65535), np.floor(values / 257 + 0.5))
    assert np.array_equal(scale_table(256, 0, 255), np.arange(256))
    assert range_of(np.ones(4096, np.int64), None) == (0, 4095)


@pytest.mark.parametrize("stretch", [None, *STRETCHES])
def test_decoders_are_told_how_to_stretch(stretch: str | None) -> None:
    data = encoded(DARK, "PNG")
    with DecoderPool(Limits(decoders=1)) as pool, pool.decoded(data, stretch=stretch) as image:
        assert np.array_equal(image, decode_image(data, LIMITS, stretch))
