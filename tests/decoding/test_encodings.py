"""One picture, one set of pixels: whatever file it comes in."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from helpers import drawn_image
from numpy.typing import NDArray
from PIL import Image
from tiff_files import DEFLATE, LZW, PACKBITS, PLAIN, tiff
from tiff_files import RGB as TIFF_RGB

from bench.harness.image_bombs import encoded
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image

PICTURE = drawn_image(37, 53) // 52 * 51  # of so few colours that a palette holds them
DEEP = PICTURE.astype(np.uint16) * 257


def by_pillow() -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(PICTURE)
    for kind, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        yield kind, encoded(image, kind, **options)
        yield f"{kind} RGBA", encoded(image.convert("RGBA"), kind, **options | ({"exact": True} if options else {}))
    palette = image.quantize(256)
    assert np.array_equal(palette.convert("RGB"), PICTURE)
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        yield f"{kind} palette", encoded(palette, kind)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd"):
        yield compression, encoded(image, "TIFF", compression=compression)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        yield f"{kind} turned", encoded(np.ascontiguousarray(np.rot90(PICTURE)), kind, exif=exif, **options)


def by_hand() -> Iterator[tuple[str, bytes]]:
    layouts: tuple[dict[str, Any], ...] = ({}, {"planar": True}, {"tile": 32}, {"big": True})
    for order, compression, layout in itertools.product("<>", (PLAIN, LZW, DEFLATE, PACKBITS), layouts):
        for samples, bits in ((PICTURE, 8), (DEEP, 16)):
            data = tiff(samples, bits, TIFF_RGB, compression, order, predictor=2 if compression == LZW else 1, **layout)
            yield f"TIFF {bits} {order} {compression} {layout}", data
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, DEEP, photometric="rgb", compression="zlib", tile=(16, 16), byteorder=">")
    yield "tifffile", buffer.getvalue()


def test_every_encoding_gives_the_same_pixels() -> None:
    names = []
    for name, data in itertools.chain(by_pillow(), by_hand()):
        pixels: NDArray[np.uint8] = decode_image(data, Limits())
        assert np.array_equal(pixels, PICTURE), name
        names.append(name)
    assert len(set(names)) > 80
