"""Images: the bytes of a file -> upright 8-bit RGB."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile

from sam2_amg.config import Limits
from sam2_amg.decoding.memory import bytes_needed, bytes_said
from sam2_amg.decoding.orientation import as_stored, orientation_of, tiff_orientation, upright_size
from sam2_amg.decoding.read_heif import heif_bytes, open_heif, read_heif
from sam2_amg.decoding.read_png import WidePng, correct_transparency, is_wide, open_wide_png, read_wide_png
from sam2_amg.decoding.read_tiff import read_tiff, tiff_bytes
from sam2_amg.decoding.refusals import not_an_image, too_many_pixels, truncated, unsupported_pixels
from sam2_amg.decoding.stretch import bands_of, stretch_in_place
from sam2_amg.decoding.tiff_kinds import require_readable
from sam2_amg.decoding.walk_heif import heif_kind, heif_size
from sam2_amg.decoding.walk_jpeg import walk_jpeg
from sam2_amg.decoding.walk_png import SIGNATURE, walk_png
from sam2_amg.decoding.walk_tiff import TiffPage, is_tiff, walk_tiff
from sam2_amg.decoding.walk_webp import is_webp, webp_size
from sam2_amg.errors import RequestError

logger = logging.getLogger(__name__)
# The formats that Pillow opens here. Its JPEG reader opens MPO too, which many telephones write into .jpg files: a JPEG
# with further pictures behind it.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF")


@dataclass(frozen=True)
class Inspected:
    """An image file whose header has been read. `size` is width and height as stored, `needs` the bytes that decoding
    takes. `source` is what reads it, open and not yet read: an Image of Pillow, a WidePng, a TiffPage or pillow-heif's
    HeifImage. It is None for WebP, whose reader takes memory when it opens a file."""

    data: bytes
    size: tuple[int, int]
    needs: int
    source: Any
    lacks_end: bool = False


def decode_image(data: bytes, limits: Limits, stretch: str | None = None) -> NDArray[np.uint8]:
    """Decodes the bytes of an image file (the first frame of several) to uint8 RGB [H, W, 3], turned upright.

    Alpha is laid over white, deeper samples are scaled to 8 bits, palettes, grey and CMYK are converted.
    `stretch` is None (the whole range becomes 0 to 255) or one of STRETCHES: "minmax" scales the picture's least to
    greatest value over all bands to 0 to 255, "percentile" its 2nd to 98th percentile.
    Raises RequestError: not_an_image, unsupported_format, unsupported_pixels, too_many_pixels, too_complex or
    truncated_image.
    """
    found = inspect_image(data, limits)
    width, height = found.size
    return decode_inspected(found, np.empty(3 * width * height, np.uint8), stretch)


def inspect_image(data: bytes, limits: Limits) -> Inspected:
    """Reads a file's header. Takes little time and memory, whatever the file.

    Raises RequestError: those of `decode_image`.
    """
    with _readers_errors(limits):
        if is_webp(data):
            return _inspect_webp(data, limits)
        if is_tiff(data):
            return _inspect_tiff(data, limits)
        kind = heif_kind(data)
        if kind is not None:
            _check_size(heif_size(data), limits)
        if kind == "HEIC":
            return _inspect_heic(data, limits)
        return _inspect_others(data, limits)


def _inspect_webp(data: bytes, limits: Limits) -> Inspected:
    size = webp_size(data)
    if size is None:
        raise not_an_image()
    _check_size(size, limits)
    return Inspected(data, size, bytes_needed("WEBP", "RGBA", size[0] * size[1], len(data)), None)


def _inspect_tiff(data: bytes, limits: Limits) -> Inspected:
    page = walk_tiff(data)
    _check_size(page.size, limits)
    require_readable(page)
    return Inspected(data, page.size, bytes_said(tiff_bytes(page), page.size, len(data)), page)


def _inspect_heic(data: bytes, limits: Limits) -> Inspected:
    image = open_heif(data)
    _check_size(image.size, limits)
    width, height = heif_size(data)
    return Inspected(data, image.size, bytes_said(heif_bytes(image, width * height), image.size, len(data)), image)


def _inspect_others(data: bytes, limits: Limits) -> Inspected:
    buffered, lacks_end = 0.0, False
    if data.startswith(b"\xff\xd8\xff"):
        walked = walk_jpeg(data)
        data, buffered, lacks_end = walked.data, walked.buffered, walked.lacks_end
    elif data.startswith(SIGNATURE):
        data = walk_png(data)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(image.size, limits)
    if image.format == "PNG" and is_wide(data):
        wide = open_wide_png(data)
        return Inspected(data, image.size, bytes_said(wide.needs, image.size, len(data)), wide)
    if image.format == "PNG":
        correct_transparency(data, image)
    needs = bytes_needed(image.format or "", image.mode, image.width * image.height, len(data), buffered)
    return Inspected(data, image.size, needs, image, lacks_end)


def decode_inspected(found: Inspected, into: NDArray[np.uint8], stretch: str | None = None) -> NDArray[np.uint8]:
    """Decodes what has been inspected. The pixels lie in `into`, uint8 [at least 3 W H], and are returned as a view
    of it, uint8 RGB [H, W, 3]. `stretch` is that of `decode_image`.

    Raises RequestError: not_an_image, truncated_image or unsupported_pixels.
    """
    with _readers_errors(Limits()):
        source = found.source or Image.open(io.BytesIO(found.data), formats=FORMATS)
        orientation = _orientation(source)
        height, width = upright_size(found.size, orientation)
        upright = into[: 3 * width * height].reshape(height, width, 3)
        stored = as_stored(upright, orientation)
        if isinstance(source, TiffPage):
            read_tiff(found.data, source, stored, stretch)
        elif isinstance(source, WidePng):
            read_wide_png(found.data, source, stored, stretch)
        elif isinstance(source, Image.Image):
            if not _decode_jpeg(found, source, upright, orientation):
                _convert(source, found.size, stored)
            stretch_in_place(upright, stretch)
        else:
            read_heif(source, stored, stretch)
        return upright


def pixels_of(image: Image.Image, limits: Limits) -> NDArray[np.uint8]:
    """An image of Pillow -> uint8 RGB [H, W, 3], as `decode_image` makes it of the file. The image does not change.

    Raises RequestError: too_many_pixels, truncated_image, or unsupported_pixels for samples of more than 8 bits.
    """
    with _readers_errors(limits):
        _check_size(image.size, limits)
        if image.mode.startswith(("I", "F", "LAB")):
            raise unsupported_pixels(
                f"samples of Pillow's mode {image.mode}", "mode L or RGB, or give the path of its file"
            )
        orientation = orientation_of(image)
        upright = np.empty((*upright_size(image.size, orientation), 3), np.uint8)
        copy = image.copy()
        _convert(copy, copy.size, as_stored(upright, orientation))
        return upright


def _orientation(source: Any) -> int:
    """How the stored pixels are turned. libheif turns them itself."""
    if isinstance(source, TiffPage):
        return tiff_orientation(source)
    if isinstance(source, WidePng):
        return orientation_of(source.image, header_only=True)
    return orientation_of(source) if isinstance(source, Image.Image) else 1


@contextmanager
def _readers_errors(limits: Limits) -> Iterator[None]:
    """Makes RequestErrors of what readers raise."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels("The image", limits) from error
    except UnidentifiedImageError as error:
        raise not_an_image() from error
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # readers raise whatever a broken file makes them stumble over
        raise truncated(error) from error


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise too_many_pixels(f"The image is {width} x {height} pixels and", limits)
    if min(size) < 1:
        raise truncated("it has no pixels")


def _decode_jpeg(found: Inspected, image: Image.Image, upright: NDArray[np.uint8], orientation: int) -> bool:
    """Decodes a colour or grey JPEG into `upright`, uint8 [H, W, 3]; False where simplejpeg does not read it.

    simplejpeg has Pillow's library, and Pillow's pixels, and writes them where they are to lie. It takes warnings for
    errors, Pillow ignores them: so an end marker is added for simplejpeg alone, to which a missing block is an error.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return False
    data = found.data + b"\xff\xd9" if found.lacks_end else found.data
    try:
        if orientation == 1:
            simplejpeg.decode_jpeg(data, "RGB", buffer=upright)
        else:
            as_stored(upright, orientation)[...] = simplejpeg.decode_jpeg(data, "RGB")  # [h, w, 3] as stored
    except ValueError:
        logger.debug("simplejpeg does not read this JPEG", exc_info=True)
        return False
    return True


def _convert(image: Image.Image, size: tuple[int, int], stored: NDArray[np.uint8]) -> None:
    """Reads an image of `size`, and writes it as RGB to `stored`, uint8 [h, w, 3], a band of rows at a time."""
    if image.size != size:
        raise truncated("its headers give two sizes")
    frame = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile else None
    with image:
        image.load()
        for rows in bands_of(image.height, image.width):
            stored[rows] = np.asarray(_to_rgb(image.crop((0, rows.start, image.width, rows.stop))))
    if frame is not None:
        _whiten_outside(stored, frame)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes of 8 bits -> RGB, over white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _whiten_outside(stored: NDArray[np.uint8], frame: tuple[int, int, int, int]) -> None:
    """Makes white what lies outside a GIF's first frame, which may be smaller than its screen."""
    left, top, right, bottom = frame
    for outside in (stored[:top], stored[bottom:], stored[:, :left], stored[:, right:]):
        outside[...] = 255
