"""Decoders take no more memory than is said before they begin, in every format and pixel type."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.harness.image_bombs import encoded
from bench.harness.vitals import children, kibibytes
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import inspect_image
from sam2_amg.decoding.pool import DecoderPool

SIDE = 2048
TURNED = Image.Exif()
TURNED[0x0112] = 6
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
    "BMP": ("L", "BMP", {}),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(Limits(decoders=1)) as decoders:
        yield decoders


@pytest.fixture(scope="module")
def image() -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))


def peak_of(pool: DecoderPool, data: bytes) -> int:
    """Bytes of memory that a decoder takes for a file, beside what it has before."""
    (process,) = children(pool._server.process.pid)
    status = f"/proc/{process}/status"
    Path(f"/proc/{process}/clear_refs").write_text("5")  # forgets the peak
    before = kibibytes(status, "VmRSS")
    with pool.decoded(data, time.monotonic() + 60):
        return (kibibytes(status, "VmHWM") - before) << 10


@pytest.mark.parametrize("name", CASES)
def test_no_more_is_taken_than_said(name: str, pool: DecoderPool, image: Image.Image) -> None:
    mode, kind, options = CASES[name]
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    data = encoded(grey if mode == "I;16" else image.convert(mode), kind, **options)
    with pool.decoded(encoded(image.resize((64, 64)), "PNG")):
        pass  # the decoder is there
    needs = inspect_image(data, Limits()).needs
    peak = peak_of(pool, data)
    assert peak <= needs
    assert peak > 8 * SIDE * SIDE or kind != "WEBP"  # the measure sees what is taken
    assert needs < 24 * SIDE * SIDE + 4 * len(data)
