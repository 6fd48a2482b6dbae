"""PNG files of every colour type and depth, with and without transparency, in rows and interlaced (Adam7)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from helpers import ROOT
from numpy.typing import NDArray
from tiff_files import nearest

from bench.harness.image_bombs import chunk
from sam2_amg.config import Limits
from sam2_amg.decoding import STRETCHES
from sam2_amg.decoding.decode import decode_image
from sam2_amg.errors import RequestError

LIMITS = Limits()
INPUTS = ROOT.parent / "shared" / "faults" / "inputs"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
BANDS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
KINDS = [
    *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((colour, bits) for colour in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)),
]
H, W = 13, 21
COLOURS = np.random.default_rng(0).integers(0, 256, (256, 4)).astype(np.uint8)
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png(samples: NDArray, bits: int, colour: int, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A file of samples [h, w, bands]."""
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [samples]
    rows = b"".join(_filtered(part, bits) for part in parts if part.size)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def _filtered(part: NDArray, bits: int) -> bytes:
    if bits == 16:
        rows = part.astype(">u2").reshape(len(part), -1).view(np.uint8)
    else:
        spread = part.reshape(len(part), -1, 1) >> np.arange(bits - 1, -1, -1) & 1
        rows = np.packbits(spread.astype(np.uint8).reshape(len(part), -1), axis=1)
    above, filtered = np.zeros_like(rows[0]), []
    for row in rows:  # by the Up filter
        filtered.append(b"\2" + (row - above).tobytes())
        above = row
    return b"".join(filtered)


def samples_of(colour: int, bits: int) -> NDArray:
    kind = np.uint16 if bits == 16 else np.uint8
    return np.random.default_rng(bits).integers(0, 1 << bits, (H, W, BANDS[colour]), kind)


def transparency_of(colour: int, bits: int, samples: NDArray) -> bytes:
    if colour == PALETTE:
        return COLOURS[: 1 << bits, 3].tobytes()
    return samples[3, 5].astype(">u2").tobytes()


def deep_picture(samples: NDArray, bits: int, colour: int, transparent: bool) -> tuple[NDArray, int]:
    """The picture over white before it is scaled to 8 bits, and its white."""
    top, values = (1 << bits) - 1, samples.astype(np.int64)
    shown, alpha = values[..., : (1 if colour in (GREY, GREY_ALPHA) else 3)], None
    if colour == PALETTE:
        shown, top = COLOURS[values[..., 0], :3].astype(np.int64), 255
        alpha = COLOURS[values[..., 0], 3:].astype(np.int64) if transparent else None
    elif colour in (GREY_ALPHA, RGBA):
        alpha = values[..., -1:]
    elif transparent:
        alpha = np.where((values == values[3, 5]).all(2, keepdims=True), 0, top)
    return (shown if alpha is None else nearest(shown * alpha + top * (top - alpha), top)), top


def picture(samples: NDArray, bits: int, colour: int, transparent: bool) -> NDArray[np.uint8]:
    shown, top = deep_picture(samples, bits, colour, transparent)
    return np.broadcast_to(nearest(shown * 255, top), (H, W, 3)).astype(np.uint8)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_every_kind(colour: int, bits: int, transparent: bool, interlaced: bool) -> None:
    samples = samples_of(colour, bits)
    more = chunk(b"PLTE", COLOURS[: 1 << bits, :3].tobytes()) if colour == PALETTE else b""
    transparent = transparent and colour not in (GREY_ALPHA, RGBA)
    more += chunk(b"tRNS", transparency_of(colour, bits, samples)) if transparent else b""
    decoded = decode_image(png(samples, bits, colour, interlaced, more), LIMITS)
    assert np.array_equal(decoded, picture(samples, bits, colour, transparent))


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("colour", [GREY, RGB, GREY_ALPHA, RGBA])
def test_sixteen_bits_are_stretched(colour: int, stretch: str) -> None:
    samples = samples_of(colour, 16)
    samples[..., : 1 if colour in (GREY, GREY_ALPHA) else 3] //= 20
    shown, _ = deep_picture(samples, 16, colour, False)
    ends = (0, 100) if stretch == "minmax" else (2, 98)
    low, high = (int(value) for value in np.percentile(shown, ends, method="inverted_cdf"))
    expected = nearest((shown.clip(low, high) - low) * 255, high - low)
    decoded = decode_image(png(samples, 16, colour), LIMITS, stretch)
    assert np.array_equal(decoded, np.broadcast_to(expected, (H, W, 3)))


@pytest.mark.parametrize("colour", [GREY, RGB, GREY_ALPHA, RGBA])
def test_sixteen_bits_that_break_off(colour: int) -> None:
    data = png(samples_of(colour, 16), 16, colour)
    for cut in (data[: len(data) // 2], data[:40]):
        with pytest.raises(RequestError) as caught:
            decode_image(cut, LIMITS)
        assert caught.value.code in ("truncated_image", "not_an_image")


def test_every_alpha_lies_over_white_to_the_nearest() -> None:
    """All pairs of a colour and an alpha."""
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    colour, alpha = pairs[..., :1].astype(np.int64), pairs[..., 1:].astype(np.int64)
    expected = nearest(colour * alpha + 255 * (255 - alpha), 255)
    assert np.array_equal(decode_image(png(pairs, 8, GREY_ALPHA), LIMITS), np.repeat(expected, 3, 2))


@pytest.mark.skipif(not INPUTS.exists(), reason="the folder of faults is not here")
def test_faults_that_were_seen() -> None:
    pixels = decode_image((INPUTS / "p_l16_trns.png").read_bytes(), LIMITS)
    assert pixels.mean() == pytest.approx(183.6, abs=0.05)
