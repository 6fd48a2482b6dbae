"""TIFF pages -> RGB. libtiff (Pillow's) unpacks strips and tiles; what their samples mean is read here.

libtiff is shown a directory that is written anew, in which a row is so many bytes of grey. So it hands out samples of
any depth and number as they lie in the file. JPEG and YCbCr pages it turns into RGB itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_amg.decoding import walk_tiff as tiff
from sam2_amg.decoding.colours import cmyk_to_rgb, over_white
from sam2_amg.decoding.refusals import truncated
from sam2_amg.decoding.stretch import write_scaled
from sam2_amg.decoding.tiff_kinds import (
    CMYK,
    FAX,
    JPEG,
    MINISBLACK,
    MINISWHITE,
    PALETTE,
    YCBCR,
    alpha_of,
    colour_bands,
    is_planar,
    is_raw,
    predictor_of,
)
from sam2_amg.decoding.walk_tiff import Field, TiffPage

_MOST_PACKED = 1 << 40  # bytes: a count that is greater is wrong, and libtiff says so


@dataclass(frozen=True)
class _Plane:
    """What libtiff is asked for: an image of Pillow's `mode`, by `raw`, `width` samples wide."""

    mode: str
    raw: str
    width: int


def tiff_bytes(page: TiffPage) -> int:
    """Bytes of memory that reading takes, beside the decoded pixels: those as stored, a strip and its file bytes."""
    width, height = page.size
    rows = page.tile[1] if page.tile else min(height, page.value(tiff.ROWS_PER_STRIP, height))
    across = page.tile[0] if page.tile else width
    counts = page.values(tiff.TILE_COUNTS if page.tile else tiff.STRIP_COUNTS, -(-height // max(1, rows)) * page.bands)
    packed = int(counts.max(initial=0).clip(0, _MOST_PACKED))
    if is_raw(page):
        each = page.bits * page.bands
        return (width * each // 8 + page.bands) * height + across * rows * each // 8 + packed
    stored = 4 if page.bands > 1 else 1
    return stored * width * height + 8 * across * rows + packed


def read_tiff(data: bytes, page: TiffPage, stored: NDArray[np.uint8], stretch: str | None) -> None:
    """Writes a page that is readable as RGB to `stored`, uint8 [h, w, 3]."""
    planes = _planes(data, page)
    palette = _palette(page)
    depth = 256 if palette is not None else 1 << page.bits

    def rows_of(rows: slice) -> NDArray[Any]:
        samples = _samples(planes, page, rows)
        return _colours(samples, page, palette)

    write_scaled(rows_of, stored, stretch, depth)


def _palette(page: TiffPage) -> NDArray[np.uint8] | None:
    """Colours by index, uint8 [count, 3]."""
    if page.value(tiff.PHOTOMETRIC, 1) != PALETTE:
        return None
    colours = page.values(tiff.COLOR_MAP, 3 << page.bits).reshape(3, -1).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _samples(planes: list[Image.Image], page: TiffPage, rows: slice) -> NDArray[Any]:
    """Some rows of all bands: uint8 or uint16 [n, w, bands]."""
    parts = [np.asarray(plane.crop((0, rows.start, plane.width, rows.stop))) for plane in planes]
    if is_raw(page):
        parts = [_unpacked(part, page, page.bands // len(planes)) for part in parts]
    parts = [part.reshape(*part.shape[:2], -1) for part in parts]
    return parts[0].astype(np.uint8) if parts[0].dtype == bool else np.concatenate(parts, 2)


def _unpacked(raw: NDArray[np.uint8], page: TiffPage, bands: int) -> NDArray[Any]:
    """Bytes of rows [n, bytes] -> samples, uint8 or uint16 [n, w, bands]."""
    width, bits = page.size[0], page.bits
    if bits == 8:
        samples: NDArray[Any] = raw
    elif bits == 16:
        samples = np.ascontiguousarray(raw).view(page.order + "u2").astype(np.uint16)
    else:
        each = np.unpackbits(raw, axis=1)[:, : width * bands * bits].reshape(len(raw), -1, bits)
        samples = np.zeros(each.shape[:2], np.uint8 if bits < 8 else np.uint16)
        for i in range(bits):
            samples = samples << 1 | each[..., i]
    samples = samples.reshape(len(raw), width, bands)
    return _summed(samples, page.tile[0] if page.tile else width) if predictor_of(page) == 2 else samples


def _summed(differences: NDArray[Any], across: int) -> NDArray[Any]:
    """Undoes horizontal differencing (TIFF 6.0, section 14), which begins anew in each tile."""
    samples = np.empty_like(differences)
    for left in range(0, differences.shape[1], across):
        part = slice(left, left + across)
        np.add.accumulate(differences[:, part], axis=1, dtype=differences.dtype, out=samples[:, part])
    return samples


def _colours(samples: NDArray[Any], page: TiffPage, palette: NDArray[np.uint8] | None) -> NDArray[Any]:
    """Grey [n, w, 1] or RGB [n, w, 3] of samples [n, w, bands], over white."""
    photometric, top = page.value(tiff.PHOTOMETRIC, 1), (1 << page.bits) - 1
    colour = samples[..., : colour_bands(page)]
    alpha = alpha_of(page)
    if photometric == MINISWHITE:
        colour = top - colour
    elif photometric == CMYK:
        colour = cmyk_to_rgb(colour, top)
    elif palette is not None:
        colour = palette[colour[..., 0]]
    if alpha is None:
        return colour
    band, premultiplied = alpha
    share = samples[..., band : band + 1]
    if palette is not None:
        share, top = (share.astype(np.uint32) * 255 // top).astype(np.uint8), 255
    return over_white(colour, share, top, premultiplied)


def _planes(data: bytes, page: TiffPage) -> list[Image.Image]:
    """What libtiff reads of the page: one image, or one a band."""
    count = page.bands if is_planar(page) else 1
    plane = _plane(page, page.bands // count)
    shown, places = _with_directories(data, page, plane, count)
    size = plane.width, page.size[1]
    return [Image.frombytes(plane.mode, size, shown, "libtiff", (plane.raw, False, at)) for at in places]


def _plane(page: TiffPage, bands: int) -> _Plane:
    width = page.size[0]
    if is_raw(page):
        return _Plane("L", "L", (width * bands * page.bits + 7) // 8)
    if page.value(tiff.COMPRESSION, 1) in FAX:
        return _Plane("1", "1", width)
    if page.value(tiff.PHOTOMETRIC, 1) == YCBCR and page.value(tiff.COMPRESSION, 1) != JPEG:
        return _Plane("RGB", "RGBX", width)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[bands]
    return _Plane(mode, mode, width)


def _with_directories(data: bytes, page: TiffPage, plane: _Plane, count: int) -> tuple[bytes, list[int]]:
    """The file with a directory a plane at its end, and where these begin. The header names the first."""
    parts = [b"", data[8:] if not page.big else data[16:]]
    at = len(data) + (len(data) & 1)
    parts.append(bytes(at - len(data)))
    offsets = []
    for index in range(count):
        offsets.append(at)
        parts.append(_directory(page, _fields(page, plane, index, count), at))
        at += len(parts[-1])
    parts[0] = (
        data[:8] + struct.pack(page.order + "Q", offsets[0])
        if page.big
        else data[:4] + struct.pack(page.order + "I", offsets[0])
    )
    return b"".join(parts), offsets


def _fields(page: TiffPage, plane: _Plane, index: int, count: int) -> dict[int, Field]:
    """The fields that libtiff is shown of one plane."""
    width, height = page.size
    raw, bands = is_raw(page), page.bands // count
    numbers = {
        tiff.WIDTH: plane.width,
        tiff.HEIGHT: height,
        tiff.COMPRESSION: page.value(tiff.COMPRESSION, 1),
        tiff.PHOTOMETRIC: MINISBLACK if raw or count > 1 else page.value(tiff.PHOTOMETRIC, 1),
        tiff.BANDS: 1 if raw else bands,
        tiff.PLANAR: 1,
    }
    bits = [8] if raw else [page.bits] * bands
    across, down = width, min(height, page.value(tiff.ROWS_PER_STRIP, height))
    places, counts = tiff.STRIP_OFFSETS, tiff.STRIP_COUNTS
    if page.tile:
        across, down = page.tile
        places, counts = tiff.TILE_OFFSETS, tiff.TILE_COUNTS
        numbers |= {tiff.TILE_WIDTH: across * bands * page.bits // 8 if raw else across, tiff.TILE_HEIGHT: down}
    else:
        numbers[tiff.ROWS_PER_STRIP] = down
    if min(across, down) < 1:
        raise truncated("its strips or tiles have no size")
    if predictor_of(page) != 1 and not raw:
        numbers[tiff.PREDICTOR] = predictor_of(page)
    each = -(-width // across) * -(-height // down)
    fields = {tag: page.fields[tag] for tag in tiff.HANDED_ON if tag in page.fields}
    fields |= {tag: _field(page, [value]) for tag, value in numbers.items()}
    fields[tiff.BITS] = Field(3, len(bits), memoryview(np.array(bits, page.order + "u2").tobytes()))
    for tag in (places, counts):
        if tag in page.fields:
            values = page.values(tag, each * count)[each * index : each * (index + 1)]
            if values.size < each:
                raise truncated(f"it names {values.size} of {each} strips or tiles")
            fields[tag] = _field(page, values)
    return fields


def _field(page: TiffPage, values: object) -> Field:
    """A field of numbers of 4 bytes, or of 8 in a BigTIFF."""
    numbers = np.asarray(values, page.order + ("u8" if page.big else "u4"))
    return Field(16 if page.big else 4, numbers.size, memoryview(numbers.tobytes()))


def _directory(page: TiffPage, fields: dict[int, Field], at: int) -> bytes:
    """A directory that lies at an offset of the file, with its values behind it."""
    head, entry, link, inline = ("Q", "HHQ", 8, 8) if page.big else ("H", "HHI", 4, 4)
    behind = (
        at + struct.calcsize(page.order + head) + len(fields) * (struct.calcsize(page.order + entry) + inline) + link
    )
    entries, values = struct.pack(page.order + head, len(fields)), b""
    for tag, found in sorted(fields.items()):
        place = bytes(found.raw).ljust(inline, b"\0")
        if len(found.raw) > inline:
            place = struct.pack(page.order + ("Q" if page.big else "I"), behind + len(values))
            values += bytes(found.raw) + bytes(len(found.raw) & 1)
        entries += struct.pack(page.order + entry, tag, found.kind, found.count) + place
    return entries + bytes(link) + values
