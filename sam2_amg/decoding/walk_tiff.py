"""A walk over a TIFF file's directories (TIFF 6.0, section 2; BigTIFF), before any decoder opens it: which page is the
photograph, and how its samples lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sam2_amg.decoding.refusals import too_complex, truncated

MOST_FIELDS = 4_000  # of one directory; programs write a few dozen
_MOST_PAGES = 64  # looked at for the photograph; also SubIFDs
_MAGIC = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_SIZES = {2: 1, 5: 8, 10: 8, 11: 4, 12: 8} | {kind: int(name[1]) for kind, name in _TYPES.items()}

# Fields (TIFF 6.0, appendix A).
SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 255, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, BANDS, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 317, 320, 322, 323, 324, 325
SUB_IFDS, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES, SUBSAMPLING, XMP = 330, 332, 338, 339, 347, 530, 700
# Those that libtiff needs besides, handed on as they stand: fax options, JPEG tables, what YCbCr means.
HANDED_ON = (FILL_ORDER, 292, 293, JPEG_TABLES, 529, SUBSAMPLING, 531, 532)
_KEPT = {SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, BANDS,
         ROWS_PER_STRIP, STRIP_COUNTS, PLANAR, PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS,
         SUB_IFDS, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, XMP, *HANDED_ON}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field as it stands: `raw` are `count` values of type `kind` in the file's byte order."""

    kind: int
    count: int
    raw: memoryview


@dataclass(frozen=True)
class TiffPage:
    """One directory. `order` is "<" or ">", `big` says that it is a BigTIFF; `fields` are those that are wanted."""

    order: str
    big: bool
    fields: dict[int, Field] = field(repr=False)
    subs: tuple[int, ...]  # where its SubIFDs lie
    following: int  # where the next page lies; 0 for none

    def values(self, tag: int, most: int = _MOST_PAGES) -> NDArray[np.int64]:
        """The first whole numbers of a field, `most` of them; none where it is absent or holds something else."""
        found = self.fields.get(tag)
        if found is None or found.kind not in _TYPES:
            return np.empty(0, np.int64)
        return np.frombuffer(found.raw, self.order + _TYPES[found.kind], min(most, found.count)).astype(np.int64)

    def value(self, tag: int, default: int) -> int:
        """The first number of a field."""
        values = self.values(tag, 1)
        return int(values[0]) if values.size else default

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.value(WIDTH, 0), self.value(HEIGHT, 0)

    @property
    def bands(self) -> int:
        """Samples a pixel."""
        return self.value(BANDS, 1)

    @property
    def bits(self) -> int:
        """Bits a sample; 0 where the bands have different ones."""
        values = self.values(BITS)[: max(1, self.bands)]
        return 1 if not values.size else int(values[0]) if (values == values[0]).all() else 0

    @property
    def tile(self) -> tuple[int, int] | None:
        """Width and height of its tiles; None where it lies in strips."""
        return (self.value(TILE_WIDTH, 0), self.value(TILE_HEIGHT, 0)) if TILE_OFFSETS in self.fields else None

    @property
    def is_photograph(self) -> bool:
        """Whether it is neither a reduced image nor a mask of another one."""
        return not self.value(SUBFILE, 0) & 5 and self.value(OLD_SUBFILE, 1) != 2


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as a TIFF does."""
    return data[:4] in _MAGIC


def walk_tiff(data: bytes) -> TiffPage:
    """The page that is the photograph: the first one, but where that is a reduced image (as in DNG), the first that
    is none among its SubIFDs and the pages after it. Raises RequestError truncated_image or too_complex.
    """
    first = _directory(data, _first_offset(data))
    if first.is_photograph:
        return first
    for page in _other_pages(data, first):
        if page.is_photograph:
            inherited = {tag: first.fields[tag] for tag in (ORIENTATION, XMP) if tag in first.fields}
            return replace(page, fields=inherited | page.fields)
    return first


def _other_pages(data: bytes, first: TiffPage) -> Iterator[TiffPage]:
    for at in first.subs:
        yield _directory(data, at)
    at = first.following
    for _ in range(_MOST_PAGES):
        if not at:
            return
        page = _directory(data, at)
        yield page
        at = page.following


def _first_offset(data: bytes) -> int:
    order, big = _MAGIC[data[:4]]
    try:
        return int(struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0])
    except struct.error as error:
        raise truncated(error) from error


def _directory(data: bytes, at: int) -> TiffPage:
    """The directory at an offset."""
    order, big = _MAGIC[data[:4]]
    head, entry, link = (struct.Struct(order + form) for form in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    if at + head.size > len(data):
        raise truncated("a directory of the TIFF lies beyond the file's end")
    (count,) = head.unpack_from(data, at)
    start = at + head.size
    end = start + count * entry.size
    if end > len(data):
        raise truncated("a directory of the TIFF lies beyond the file's end")
    if count > MOST_FIELDS:
        raise too_complex(f"more than {MOST_FIELDS} fields in a directory")
    fields: dict[int, Field] = {}
    for tag, kind, number, inline in entry.iter_unpack(memoryview(data)[start:end]):
        if tag in _KEPT and kind in _SIZES and tag not in fields:
            fields[tag] = Field(kind, number, _value(data, order, number * _SIZES[kind], inline))
    following = link.unpack_from(data, end)[0] if end + link.size <= len(data) else 0
    page = TiffPage(order, big, fields, (), int(following))
    return replace(page, subs=tuple(int(sub) for sub in page.values(SUB_IFDS)))


def _value(data: bytes, order: str, size: int, inline: bytes) -> memoryview:
    """The bytes of a field's values, which stand in the entry where they fit."""
    if size <= len(inline):
        return memoryview(inline)[:size]
    start = int.from_bytes(inline, "little" if order == "<" else "big")
    if start + size > len(data):
        raise truncated("a field of the TIFF lies beyond the file's end")
    return memoryview(data)[start : start + size]
