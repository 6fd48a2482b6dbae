"""A walk over the boxes of a HEIC or AVIF file (ISO/IEC 23008-12, 14496-12), before any decoder opens it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sam2_amg.decoding.refusals import too_complex, truncated

MOST_BOXES = 20_000  # a photograph of 48 megapixels in tiles has some 300
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"}
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # bytes before the boxes within


def heif_kind(data: bytes) -> str | None:
    """ "AVIF" or "HEIC" by the brands that a file begins with; None for other files."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), len(data), 1024)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    return "AVIF" if brands & _AVIF else "HEIC" if brands & _HEIC else None


def heif_size(data: bytes) -> tuple[int, int]:
    """Width and height that the images of a file have at most, thumbnails, tiles and masks included. Raises
    RequestError truncated_image where it names none, and too_complex."""
    sizes = [
        struct.unpack_from(">II", data, start + 4)
        for kind, start, end in _boxes(data, 0, len(data))
        if kind == b"ispe" and end - start >= 12
    ]
    if not sizes:
        raise truncated("it has no image of a known size")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the contents of each box, those within containers included."""
    waiting, seen = [(start, end)], 0
    while waiting:
        at, end = waiting.pop()
        while at + 8 <= end:
            seen += 1
            if seen > MOST_BOXES:
                raise too_complex(f"more than {MOST_BOXES} boxes")
            size, inside = int.from_bytes(data[at : at + 4], "big"), at + 8
            if size == 1:
                size, inside = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
            following = at + size if size else end
            if following < inside or following > end:
                break  # left to the decoder
            kind = data[at + 4 : at + 8]
            yield kind, inside, following
            if kind in _CONTAINERS:
                waiting.append((inside + _CONTAINERS[kind], following))
            at = following
