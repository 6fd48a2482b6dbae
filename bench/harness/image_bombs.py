"""Image files for tests and loads: good ones, and some that are small to send and dear to decode."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from numpy.typing import NDArray
from PIL import Image


def encoded(image: Image.Image | NDArray[Any], image_format: str, **options: Any) -> bytes:
    """A file of this image, as Pillow writes it, and HEIC as pillow-heif does."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if image_format == "HEIC":
        import pillow_heif  # an extra, which other formats do without

        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(side: int, bits: int, colour: int, bytes_a_pixel: int, more: bytes = b"") -> bytes:
    """A PNG whose pixels are packed a thousandfold, with further chunks."""
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(side * bytes_a_pixel + 1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def with_scans(side: int, count: int) -> bytes:
    """A progressive JPEG with `count` scans more, of ten bytes each, in which nothing is."""
    data = encoded(Image.new("RGB", (side, side), (128, 128, 128)), "JPEG", progressive=True, quality=50)
    return data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x01\x05\x02" * count + b"\xff\xd9"


def nearly_empty_gif(side: int) -> bytes:
    """A large screen, and one pixel on it."""
    pixel = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HH", side, side) + bytes(3) + pixel + b";"


def bombs(side: int, repeats: int = 1) -> dict[str, tuple[bytes, set[int]]]:
    """Name -> a file, and what may be answered to it alone; images are of `side` x `side` pixels. What is repeated in
    a header is repeated `repeats` times as often as decoders bear."""
    small = encoded(Image.new("RGB", (64, 64)), "JPEG")
    head, rest = small[:2], small[2:]
    return {
        "webp_rgba": (encoded(Image.new("RGBA", (side, side)), "WEBP", lossless=True, method=0), {200, 413}),
        "grey16": (black_png(side, 16, 0, 2), {200}),
        "rgba16": (black_png(side, 16, 6, 8), {200}),
        "gif": (nearly_empty_gif(side), {200}),
        "scans": (with_scans(side, 1999), {400}),
        "exif": (head + (b"\xff\xe1\xff\xffExif\0\0" + b"A" * 65527) * (90 * repeats) + rest, {200}),
        "padding": (head + b"\xff" * (2000 * repeats) + rest, {400}),
        "comments": (head + b"\xff\xfe\x00\x02" * (2500 * repeats) + rest, {400}),
        "chunks": (black_png(8, 8, 2, 3, chunk(b"abCd", b"") * (6000 * repeats)), {400}),
        "empty chunks": (black_png(8, 8, 2, 3, chunk(b"IDAT", b"") * (6000 * repeats)), {400}),
    }
