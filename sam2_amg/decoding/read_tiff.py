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
from sam2_amg.decoding.refusals import truncated, unsupported_pixels
from sam2_amg.decoding.stretch import write_scaled
from sam2_amg.decoding.walk_tiff import Field, TiffPage

_RAW, _FAX, _JPEG = (1, 5, 8, 32773, 32946, 34925, 50000), (2, 3, 4), 7
_PREDICTED = (5, 8, 32946, 34925, 50000)  # by the others a predictor is ignored, as libtiff does
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_MINISWHITE: 1, _MINISBLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}  # bands besides extra ones
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_BANDS = 32
_MOST_PACKED = 1 << 40  # bytes: a count that is greater is wrong, and libtiff says so
_COMPRESSIONS = {6: "old-style JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC",
                 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG of a DNG", 34676: "SGI LogL",
                 34677: "SGI LogLuv"}  # fmt: skip
_MEANINGS = {4: "a transparency mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
             32803: "raw data of a camera's sensor", 34892: "raw data of a camera's sensor (linear)",
             32844: "LogL values", 32845: "LogLuv values", 51177: "a depth map"}  # fmt: skip
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 4: "samples of an undefined type",
            5: "complex integers", 6: "complex numbers"}  # fmt: skip


@dataclass(frozen=True)
class _Plane:
    """What libtiff is asked for: an image of Pillow's `mode`, by `raw`, `width` samples wide."""

    mode: str
    raw: str
    width: int


def require_readable(page: TiffPage) -> None:
    """Raises RequestError unsupported_pixels (415) for pages that are not read, and truncated_image for those that
    make no sense."""
    compression, photometric = page.value(tiff.COMPRESSION, 1), page.value(tiff.PHOTOMETRIC, -1)
    kinds = set(page.values(tiff.SAMPLE_FORMAT).tolist()) - {1}
    if photometric in _MEANINGS:
        raise unsupported_pixels(f"{_MEANINGS[photometric]} (TIFF)", _instead(photometric))
    if kinds:
        raise unsupported_pixels(f"{_FORMATS.get(min(kinds), 'samples of an unknown type')} (TIFF)")
    if compression not in (*_RAW, *_FAX, _JPEG):
        raise unsupported_pixels(f"{_COMPRESSIONS.get(compression, f'compression {compression}')} in a TIFF")
    if photometric not in _COLOURS or page.value(tiff.INK_SET, 1) != 1:
        raise unsupported_pixels("a TIFF of unknown colours (PhotometricInterpretation or InkSet)")
    if not 1 <= page.bits <= 16:
        depth = f"integers of {page.bits} bits" if page.bits else "bands of several depths"
        raise unsupported_pixels(f"{depth} (TIFF)")
    if not _COLOURS[photometric] <= page.bands <= _MOST_BANDS or (_colour_bands(page) == 1 and page.bands > 2):
        raise unsupported_pixels(f"{page.bands} bands of samples (TIFF)", "a picture of grey, RGB or CMYK")
    _require_known_layout(page, compression, photometric)


def _instead(photometric: int) -> str:
    return (
        "8- or 16-bit RGB, by the program that develops raw photographs" if photometric > 32768 else "8- or 16-bit RGB"
    )


def _require_known_layout(page: TiffPage, compression: int, photometric: int) -> None:
    """Refuses what is rare and ambiguous: raises RequestError unsupported_pixels."""
    whole = page.bits == 8 and not _is_planar(page)
    refused = {
        "fax data of several bits (TIFF)": compression in _FAX and (page.bits, page.bands) != (1, 1),
        "JPEG data of other than 8 bits (TIFF)": compression == _JPEG and page.bits != 8,
        "JPEG data with extra bands (TIFF)": compression == _JPEG and page.bands != _COLOURS[photometric],
        "YCbCr of this layout (TIFF)": photometric == _YCBCR and not (whole and page.bands == 3),
        "a palette of 16 bits (TIFF)": photometric == _PALETTE and page.bits > 8,
        "differences of this depth (TIFF predictor)": _predictor(page) != 1
        and photometric != _YCBCR
        and (_predictor(page) != 2 or page.bits not in (8, 16)),
        "premultiplied MinIsWhite (TIFF)": photometric == _MINISWHITE and _alpha(page) == (1, True),
        "tiles whose rows are no whole bytes (TIFF)": page.tile is not None and page.tile[0] * page.bits % 8 != 0,
    }
    for what, is_so in refused.items():
        if is_so:
            raise unsupported_pixels(what)
    if photometric == _PALETTE and page.values(tiff.COLOR_MAP, 768).size < 3 << page.bits:
        raise truncated("the TIFF's palette is too short")


def tiff_bytes(page: TiffPage) -> int:
    """Bytes of memory that reading takes, beside the decoded pixels: those as stored, a strip and its file bytes."""
    width, height = page.size
    rows = page.tile[1] if page.tile else min(height, page.value(tiff.ROWS_PER_STRIP, height))
    across = page.tile[0] if page.tile else width
    counts = page.values(tiff.TILE_COUNTS if page.tile else tiff.STRIP_COUNTS, -(-height // max(1, rows)) * page.bands)
    packed = int(counts.max(initial=0).clip(0, _MOST_PACKED))
    if _is_raw(page):
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


def _is_planar(page: TiffPage) -> bool:
    return page.value(tiff.PLANAR, 1) == 2 and page.bands > 1


def _predictor(page: TiffPage) -> int:
    return page.value(tiff.PREDICTOR, 1) if page.value(tiff.COMPRESSION, 1) in _PREDICTED else 1


def _is_raw(page: TiffPage) -> bool:
    """Whether samples are handed out as they lie in the file."""
    return page.value(tiff.COMPRESSION, 1) in _RAW and page.value(tiff.PHOTOMETRIC, 1) != _YCBCR


def _colour_bands(page: TiffPage) -> int:
    """How many bands are colours. Three bands that are said to be grey are RGB: so programs write arrays."""
    photometric = page.value(tiff.PHOTOMETRIC, 1)
    as_array = photometric == _MINISBLACK and page.bands == 3 and not page.values(tiff.EXTRA_SAMPLES).any()
    return 3 if as_array else _COLOURS[photometric]


def _alpha(page: TiffPage) -> tuple[int, bool] | None:
    """Which band is alpha, and whether colours are premultiplied by it; None where none is."""
    colours = _colour_bands(page)
    extras = page.values(tiff.EXTRA_SAMPLES).tolist()
    if not extras and page.bands == colours + 1 == 4:
        return colours, False  # as Pillow reads RGB of four bands that does not say what the fourth is
    for i, kind in enumerate(extras[: page.bands - colours]):
        if kind in (_ASSOCIATED, _UNASSOCIATED):
            return colours + i, kind == _ASSOCIATED
    return None


def _palette(page: TiffPage) -> NDArray[np.uint8] | None:
    """Colours by index, uint8 [count, 3]."""
    if page.value(tiff.PHOTOMETRIC, 1) != _PALETTE:
        return None
    colours = page.values(tiff.COLOR_MAP, 3 << page.bits).reshape(3, -1).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _samples(planes: list[Image.Image], page: TiffPage, rows: slice) -> NDArray[Any]:
    """Some rows of all bands: uint8 or uint16 [n, w, bands]."""
    parts = [np.asarray(plane.crop((0, rows.start, plane.width, rows.stop))) for plane in planes]
    if _is_raw(page):
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
    return _summed(samples, page.tile[0] if page.tile else width) if _predictor(page) == 2 else samples


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
    colour = samples[..., : _colour_bands(page)]
    alpha = _alpha(page)
    if photometric == _MINISWHITE:
        colour = top - colour
    elif photometric == _CMYK:
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
    count = page.bands if _is_planar(page) else 1
    plane = _plane(page, page.bands // count)
    shown, places = _with_directories(data, page, plane, count)
    size = plane.width, page.size[1]
    return [Image.frombytes(plane.mode, size, shown, "libtiff", (plane.raw, False, at)) for at in places]


def _plane(page: TiffPage, bands: int) -> _Plane:
    width = page.size[0]
    if _is_raw(page):
        return _Plane("L", "L", (width * bands * page.bits + 7) // 8)
    if page.value(tiff.COMPRESSION, 1) in _FAX:
        return _Plane("1", "1", width)
    if page.value(tiff.PHOTOMETRIC, 1) == _YCBCR and page.value(tiff.COMPRESSION, 1) != _JPEG:
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
    raw, bands = _is_raw(page), page.bands // count
    numbers = {
        tiff.WIDTH: plane.width,
        tiff.HEIGHT: height,
        tiff.COMPRESSION: page.value(tiff.COMPRESSION, 1),
        tiff.PHOTOMETRIC: _MINISBLACK if raw or count > 1 else page.value(tiff.PHOTOMETRIC, 1),
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
    if _predictor(page) != 1 and not raw:
        numbers[tiff.PREDICTOR] = _predictor(page)
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
