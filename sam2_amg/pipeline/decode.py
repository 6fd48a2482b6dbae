"""Decoding: the bytes of an image file -> upright 8-bit RGB."""

from __future__ import annotations

import io
import logging
import os

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError

logger = logging.getLogger(__name__)
# The JPEG reader also opens MPO, a JPEG followed by further pictures, which many phones write into .jpg files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF and GIF"
# EXIF orientation -> whether to transpose, then reverse the rows, then reverse the columns, to turn it upright.
# Orientation 1 is upright.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def decode_image(data: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Decodes an image file (the first frame of several) to uint8 RGB [H, W, 3], turned upright by EXIF orientation.

    Alpha is composited over white. 16-bit grey is scaled to 8 bits. Palettes, grey and CMYK are converted.
    Raises RequestError: not_an_image, too_many_pixels, truncated_image or unsupported_pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(opened.size, limits)
            return _upright(_pixels(opened, data), _orientation(opened))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("The image", limits) from error
    except UnidentifiedImageError as error:
        raise RequestError(
            415, "not_an_image", f"The file is not an image in a supported format: {_ACCEPTED}."
        ) from error
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many types for a damaged file
        raise RequestError(
            400, "truncated_image", f"The image is truncated or damaged and cannot be read ({error})."
        ) from error


def decode_into_huge_pages() -> None:
    """Makes torch request huge pages for host tensors of 2 MiB and more (THP_MEM_ALLOC_ENABLE, PyTorch PR 107697).

    Call it before the first tensor, because torch reads the variable once. Without it, the kernel clears 1,600 pages of
    4 KiB for each photograph of two megapixels.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels or max(size) > limits.max_side:
        raise _too_many_pixels(f"The image is {width} x {height} pixels and", limits)


def _too_many_pixels(subject: str, limits: Limits) -> RequestError:
    limit = f"{limits.max_pixels} pixels (--max_pixels) and {limits.max_side} pixels a side"
    return RequestError(413, "too_many_pixels", f"{subject} is over the limit of {limit}. Scale it down.")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) if the EXIF block cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises many types for a damaged block
        return 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns an image [H, W, 3] upright."""
    if orientation not in _TURNS:
        return pixels
    swap, rows, columns = _TURNS[orientation]
    turned = pixels.transpose(1, 0, 2) if swap else pixels
    # always a copy: NumPy calls a reversed axis of one pixel contiguous, but torch refuses its negative stride
    return turned[:: -1 if rows else 1, :: -1 if columns else 1].copy()


def _pixels(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """The pixels [H, W, 3] of an opened, not yet loaded image; `data` are the bytes of its file.

    torchvision decodes colour JPEGs with the same library as Pillow but with fewer copies. Pillow decodes all others.
    """
    if image.format in ("JPEG", "MPO") and image.mode == "RGB":
        try:
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:
            logger.debug("torchvision cannot decode this JPEG; trying Pillow", exc_info=True)
        else:
            return pixels.permute(1, 2, 0).contiguous().numpy()
    return np.array(_to_rgb(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes -> RGB. Raises RequestError unsupported_pixels for those without a defined range."""
    image.load()
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _sixteen_bit_to_rgb(image)
    if image.mode in ("F", "LAB"):
        raise RequestError(
            415, "unsupported_pixels", f"Pixels of type {image.mode} have no defined range. Save as 8 or 16 bits."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of 0 to 65535 -> RGB of 0 to 255, rounded to nearest. Raises RequestError unsupported_pixels."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        message = "32-bit pixels outside 0 to 65535 have no defined range. Save as 8 or 16 bits."
        raise RequestError(415, "unsupported_pixels", message)
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
