"""Images: the bytes of a file -> upright 8-bit RGB."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sam2_amg.config import Limits
from sam2_amg.decoding.memory import bytes_needed
from sam2_amg.decoding.orientation import as_stored, orientation_of, upright_size
from sam2_amg.decoding.refusals import not_an_image, too_many_pixels, truncated
from sam2_amg.decoding.stretch import bands_of, stretch_in_place, write_wide
from sam2_amg.decoding.walk_jpeg import walk_jpeg
from sam2_amg.decoding.walk_png import SIGNATURE, walk_png
from sam2_amg.decoding.walk_webp import is_webp, webp_size
from sam2_amg.errors import RequestError

logger = logging.getLogger(__name__)
# The JPEG reader opens MPO too, which many telephones write into .jpg files: a JPEG with further pictures behind it.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


@dataclass(frozen=True)
class Inspected:
    """An image file whose header has been read. `size` is width and height as stored, `needs` the bytes that decoding
    takes. `image` is open, and not yet read; it is None for WebP, whose reader takes memory when it opens a file."""

    data: bytes
    size: tuple[int, int]
    needs: int
    image: Image.Image | None
    lacks_end: bool = False


def decode_image(data: bytes, limits: Limits, stretch: str | None = None) -> NDArray[np.uint8]:
    """Decodes the bytes of an image file (the first frame of several) to uint8 RGB [H, W, 3], turned upright by EXIF.

    Alpha is laid over white, 16-bit grey is scaled to 8 bits, palettes, grey and CMYK are converted.
    `stretch` is None (all of 0 to 65535 becomes 0 to 255) or one of STRETCHES: "minmax" scales the picture's least to
    greatest value over all bands to 0 to 255, "percentile" its 2nd to 98th percentile.
    Raises RequestError: not_an_image, too_many_pixels, too_complex, truncated_image or unsupported_pixels.
    """
    found = inspect_image(data, limits)
    width, height = found.size
    return decode_inspected(found, np.empty(3 * width * height, np.uint8), stretch)


def inspect_image(data: bytes, limits: Limits) -> Inspected:
    """Reads a file's header. Takes little time and memory, whatever the file.

    Raises RequestError: not_an_image, too_many_pixels, too_complex or truncated_image.
    """
    with _readers_errors(limits):
        if is_webp(data):
            size = webp_size(data)
            if size is None:
                raise not_an_image()
            _check_size(size, limits)
            return Inspected(data, size, bytes_needed("WEBP", "RGBA", size[0] * size[1], len(data)), None)
        buffered, lacks_end = 0.0, False
        if data.startswith(b"\xff\xd8\xff"):
            walked = walk_jpeg(data)
            data, buffered, lacks_end = walked.data, walked.buffered, walked.lacks_end
        elif data.startswith(SIGNATURE):
            data = walk_png(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image.size, limits)
        pixels = image.width * image.height
        needs = bytes_needed(image.format or "", image.mode, pixels, len(data), buffered)
        return Inspected(data, image.size, needs, image, lacks_end)


def decode_inspected(found: Inspected, into: NDArray[np.uint8], stretch: str | None = None) -> NDArray[np.uint8]:
    """Decodes what has been inspected. The pixels lie in `into`, uint8 [at least 3 W H], and are returned as a view
    of it, uint8 RGB [H, W, 3]. `stretch` is that of `decode_image`.

    Raises RequestError: not_an_image, truncated_image or unsupported_pixels.
    """
    with _readers_errors(Limits()), found.image or Image.open(io.BytesIO(found.data), formats=FORMATS) as image:
        if image.size != found.size:
            raise truncated("its headers give two sizes")
        orientation = orientation_of(image)
        height, width = upright_size(found.size, orientation)
        upright = into[: 3 * width * height].reshape(height, width, 3)
        if _decode_jpeg(found, image, upright, orientation):
            stretch_in_place(upright, stretch)
        else:
            _convert(image, as_stored(upright, orientation), stretch)
        return upright


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
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise truncated(error) from error


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise too_many_pixels(f"The image is {width} x {height} pixels and", limits)


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


def _convert(image: Image.Image, stored: NDArray[np.uint8], stretch: str | None) -> None:
    """Reads an image, and writes it as RGB to `stored`, uint8 [h, w, 3], a band of rows at a time."""
    image.load()
    if image.mode in _SIXTEEN_BIT:
        write_wide(lambda rows: _sixteen_bits(_crop(image, rows)), stored, stretch)
        return
    for rows in bands_of(image.height, image.width):
        stored[rows] = np.asarray(_to_rgb(_crop(image, rows)))
    stretch_in_place(stored, stretch)


def _crop(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, rows.stop))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes of 8 bits -> RGB. Raises RequestError unsupported_pixels for those with no defined
    range."""
    if image.mode in ("F", "LAB"):
        raise RequestError(
            415, "unsupported_pixels", f"Pixels of type {image.mode} have no defined range; save as 8 or 16 bits."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> NDArray[np.uint16]:
    """Grey of 0 to 65535, uint16 [h, w]. Raises RequestError unsupported_pixels."""
    grey = np.asarray(image)
    if grey.dtype.itemsize > 2 and (grey.min() < 0 or grey.max() > 65535):
        message = "Pixels of 32 bits outside 0 to 65535 have no defined range; save as 8 or 16 bits."
        raise RequestError(415, "unsupported_pixels", message)
    return grey.astype(np.uint16)
