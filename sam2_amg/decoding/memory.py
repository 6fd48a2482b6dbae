"""How much memory decoding takes, by format and pixel type, before it begins.

The figures are bytes a pixel, measured at 8192 x 8192 pixels with Pillow 13.0.0 (tests/decoding/test_memory.py measures
them again, smaller).
"""

from __future__ import annotations

_DECODED = 3  # bytes a pixel of RGB
_STORED = {"1": 1, "L": 1, "P": 1}  # in Pillow, by mode; the others 4
# What readers need besides, until the pixels are stored: libwebp two canvases, a frame and what it is decoded from;
# libavif planes of 10 bits, and two copies of their pixels.
_BESIDE = {"WEBP": 12, "GIF": 4, "AVIF": 16}
_KEPT = 24 << 20  # bytes of a WebP's canvases that the heap keeps while pixels are stored: blocks under 32 MiB
_JPEG = 4  # what Pillow stores of a JPEG that simplejpeg does not read, or a copy that is turned upright
_FILES = 3  # copies of the file: as it came, as bytes, and without what is not needed
_FIXED = 8 << 20  # bands of rows that are converted, and tables


def bytes_needed(image_format: str, mode: str, pixels: int, file: int, buffered: float = 0.0) -> int:
    """Bytes that decoding takes at its peak, decoded pixels included, of a file of `file` bytes.

    `mode` is Pillow's, `buffered` what a JPEG decoder keeps of coefficients, bytes a pixel.
    """
    if image_format in ("JPEG", "MPO"):
        each = buffered + _JPEG + _DECODED
    else:
        each = _STORED.get(mode, 4) + max(_DECODED, _BESIDE.get(image_format, 0))
    kept = min(_KEPT, _DECODED * pixels) if image_format == "WEBP" else 0
    return int(pixels * each) + kept + _FILES * file + _FIXED


def bytes_said(reader: int, size: tuple[int, int], file: int) -> int:
    """The same, of a format whose reader says how many bytes it takes beside decoded pixels and the file."""
    return reader + bytes_held(size[0] * size[1]) + _FILES * file + _FIXED


def bytes_held(pixels: int) -> int:
    """Bytes of decoded RGB."""
    return _DECODED * pixels
