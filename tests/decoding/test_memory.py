"""Decoders take no more memory than is said before they begin, in every format and pixel type."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from decoder_processes import processes
from helpers import wait_until
from numpy.typing import NDArray
from PIL import Image
from tiff_files import tiff

from bench.harness.image_bombs import black_png, encoded
from bench.harness.vitals import kibibytes
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import inspect_image
from sam2_amg.decoding.pool import DecoderPool

SIDE = 2048
TURNED = Image.Exif()
TURNED[0x0112] = 6
FAST = {"enc_params": {"preset": "ultrafast"}}  # of x265
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG turned": ("RGB", "JPEG", {"exif": TURNED}),
    "JPEG progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "PNG grey": ("L", "PNG", {"compress_level": 1}),
    "PNG alpha": ("RGBA", "PNG", {"compress_level": 1}),
    "PNG 16 bits": ("I;16", "PNG", {"compress_level": 1}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "WebP alpha": ("RGBA", "WEBP", {"method": 0, "lossless": True}),
    "GIF": ("P", "GIF", {}),
    "TIFF": ("RGBA", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}}),
    "TIFF turned": ("RGB", "TIFF", {"compression": "tiff_deflate", "exif": TURNED}),
    "TIFF grey": ("L", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}}),
    "TIFF JPEG": ("RGB", "TIFF", {"compression": "jpeg", "tiffinfo": {278: SIDE}}),
    "TIFF YCbCr": ("YCbCr", "TIFF", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: SIDE, 530: (1, 1)}}),
    "TIFF CMYK": ("CMYK", "TIFF", {}),
    "TIFF 16 bits": ("I;16", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}}),
    "BMP": ("L", "BMP", {}),
    "AVIF": ("RGB", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    "AVIF alpha": ("RGBA", "AVIF", {"speed": 10}),
    "HEIC": ("RGBA", "HEIC", {"chroma": 444, "quality": 10, "exif": TURNED.tobytes(), **FAST}),
}
DEEP: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "HEIC 10 bits": lambda rgb: heic_10(rgb),
    "PNG 16 bits RGB": lambda _: black_png(SIDE, 16, 2, 6),
    "PNG 16 bits alpha": lambda _: black_png(SIDE, 16, 6, 8),
    "PNG 16 bits grey and alpha": lambda _: black_png(SIDE, 16, 4, 4),
    "TIFF 16 bits RGB": lambda rgb: tiff(rgb, 16, 2, 8, predictor=2),
    "TIFF 16 bits planes": lambda rgb: tiff(rgb, 16, 2, planar=True, order=">"),
    "TIFF 12 bits tiles": lambda rgb: tiff(rgb >> 4, 12, 2, tile=1024),
}


def heic_10(rgb: NDArray[np.uint16]) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (SIDE, SIDE), rgb.tobytes()).save(buffer, quality=10, chroma=444, **FAST)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(Limits(decoders=1)) as decoders:
        yield decoders


@pytest.fixture(scope="module")
def image() -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))


def peak_of(pool: DecoderPool, data: bytes) -> int:
    """Bytes of memory that a decoder takes for a file, beside what it has before, and the libraries that it reads."""
    (process,) = processes(pool)
    status = f"/proc/{process}/status"
    Path(f"/proc/{process}/clear_refs").write_text("5")  # forgets the peak
    before, libraries = kibibytes(status, "VmRSS"), kibibytes(status, "RssFile")
    with pool.decoded(data, time.monotonic() + 60):
        return (kibibytes(status, "VmHWM") - before - (kibibytes(status, "RssFile") - libraries)) << 10


@pytest.mark.parametrize("name", CASES)
def test_no_more_is_taken_than_said(name: str, pool: DecoderPool, image: Image.Image) -> None:
    mode, kind, options = CASES[name]
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    data = encoded(grey if mode == "I;16" else image.convert(mode), kind, **options)
    peak = require_enough(pool, image, data)
    assert peak > 8 * SIDE * SIDE or kind != "WEBP"  # the measure sees what is taken


@pytest.mark.parametrize("name", DEEP)
def test_no_more_is_taken_than_said_of_deep_pictures(name: str, pool: DecoderPool, image: Image.Image) -> None:
    require_enough(pool, image, DEEP[name](np.asarray(image).astype(np.uint16) * 257))


def require_enough(pool: DecoderPool, image: Image.Image, data: bytes) -> int:
    """The bytes that a file takes, which are no more than said, nor many fewer.

    They are those of a decoder that is new: one that has decoded such a file may have kept memory of it.
    """
    (process,) = processes(pool)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: pool._idle[0].has_ended)
    with pool.decoded(encoded(image.resize((64, 64)), "PNG")):
        pass  # another decoder is there
    needs = inspect_image(data, Limits()).needs
    peak = peak_of(pool, data)
    assert peak <= needs
    assert needs < 36 * SIDE * SIDE + 4 * len(data)
    return peak
