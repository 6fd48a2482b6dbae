"""Images: the bytes of a file -> upright 8-bit RGB."""

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
# The JPEG reader opens MPO too, which many telephones write into .jpg files: a JPEG with further pictures behind it.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_ACCEPTED = "JPEG, PNG, WebP, BMP, TIFF and GIF"
# What brings an image of each EXIF orientation upright, 1 is upright: rows and columns change places, rows are turned
# round, columns are turned round, in this order.
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
    """Decodes the bytes of an image file (the first frame of several) to uint8 RGB [H, W, 3], turned upright by EXIF.

    Alpha is laid over white, 16-bit grey is scaled to 8 bits, palettes, grey and CMYK are converted.
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
            415, "not_an_image", f"The file is not an image that this server reads: {_ACCEPTED}."
        ) from error
    except (RequestError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise RequestError(
            400, "truncated_image", f"The image is truncated or damaged and cannot be read ({error})."
        ) from error


def decode_into_huge_pages() -> None:
    """Has torch ask the kernel for huge pages under its host tensors of 2 MiB and more; to be called before the first,
    for torch looks once (THP_MEM_ALLOC_ENABLE, PyTorch's pull request 107697).

    A photograph of two megapixels lies on 1,600 pages of 4 KiB, which the kernel clears one by one, each time anew.
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
    """EXIF's orientation, 1 to 8. Cameras write much that is wrong around it; whatever cannot be read means upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises whatever a broken block makes it stumble over
        return 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """[H, W, 3] -> the same, or turned."""
    if orientation not in _TURNS:
        return pixels
    swap, rows, columns = _TURNS[orientation]
    turned = pixels.transpose(1, 0, 2) if swap else pixels
    # a copy in any case: an axis of one pixel that is turned round counts as contiguous, with a step that torch refuses
    return turned[:: -1 if rows else 1, :: -1 if columns else 1].copy()


def _pixels(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """[H, W, 3] of an image that has been opened and not yet read, whose file is `data`.

    torchvision has Pillow's library for colour JPEGs, and does not copy pixels three times over. What it cannot read
    is left to Pillow.
    """
    if image.format in ("JPEG", "MPO") and image.mode == "RGB":
        try:
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:
            logger.debug("torchvision does not read this JPEG", exc_info=True)
        else:
            return pixels.permute(1, 2, 0).contiguous().numpy()
    return np.array(_to_rgb(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes -> RGB. Raises RequestError unsupported_pixels for those with no defined range."""
    image.load()
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _sixteen_bit_to_rgb(image)
    if image.mode in ("F", "LAB"):
        raise RequestError(
            415, "unsupported_pixels", f"Pixels of type {image.mode} have no defined range; save as 8 or 16 bits."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of 0 to 65535 -> RGB of 0 to 255, to the nearest."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        message = "Pixels of 32 bits outside 0 to 65535 have no defined range; save as 8 or 16 bits."
        raise RequestError(415, "unsupported_pixels", message)
    return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
