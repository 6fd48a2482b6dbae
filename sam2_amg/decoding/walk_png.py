"""A walk over a PNG file's chunks (PNG specification, third edition, section 5.3), before any decoder opens it."""

from __future__ import annotations

import zlib

from sam2_amg.decoding.refusals import too_complex

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 5_000  # besides those of pixels; programs write a few dozen
LEAST_PIXEL_CHUNK = 128  # bytes, the mean of a thousand; libpng writes 8 KiB
_CHECKED = 1_000
_PIXELS = (b"IDAT", b"fdAT")
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # in which an orientation may stand
_MOST_TEXT = 1 << 16  # bytes
_MOST_EXIF = 1 << 20


def walk_png(data: bytes) -> bytes:
    """The file without the chunks that no decoder needs, such as text and colour profiles: what is wrong in them
    harms no pixel. Raises RequestError too_complex.

    A file that breaks off is left to the decoder. The frames of an animation are dropped but for the first.
    """
    kept, begun, at, others, pixels = [], 0, len(SIGNATURE), 0, 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind in _PIXELS:
            pixels += 1
            if pixels % _CHECKED == 0 and at < pixels * LEAST_PIXEL_CHUNK:
                raise too_complex(f"pixels in chunks of less than {LEAST_PIXEL_CHUNK} bytes")
        else:
            others += 1
            if others > MOST_CHUNKS:
                raise too_complex(f"more than {MOST_CHUNKS} chunks besides those of pixels")
        if not _is_needed(kind, data, at, end):
            kept.append(memoryview(data)[begun:at])
            begun = end
        at = end
        if kind == b"IEND":
            break
    return b"".join([*kept, memoryview(data)[begun:]]) if kept else data


def _is_needed(kind: bytes, data: bytes, at: int, end: int) -> bool:
    if kind in _NEEDED:
        return True
    if kind == b"eXIf":
        return end - at <= _MOST_EXIF and _is_whole(data, at, end)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        return end - at <= _MOST_TEXT and data[at + 8 : at + 40].startswith(_TEXTS) and _is_whole(data, at, end)
    return False


def _is_whole(data: bytes, at: int, end: int) -> bool:
    """Whether a chunk's checksum is right."""
    return zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
