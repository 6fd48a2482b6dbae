"""HEIC files -> RGB, by pillow-heif, which need not be there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam2_amg.decoding.colours import over_white
from sam2_amg.decoding.stretch import write_scaled
from sam2_amg.errors import RequestError

# Bytes a pixel, measured (tests/decoding/test_memory.py): planes as decoded, turned and converted, and two copies.
_EIGHT_BITS, _DEEP = 14, 28

try:
    import pillow_heif
except ImportError:  # the extra `heic` is not installed
    pillow_heif = None  # type: ignore[assignment]
else:
    pillow_heif.options.DECODE_THREADS = 1  # each thread would take memory of its own
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False


def open_heif(data: bytes) -> Any:
    """The primary image of a file as pillow-heif's HeifImage: its `size` is that of the upright image, and its pixels
    are not decoded yet. Raises RequestError unsupported_format (415) where pillow-heif is not installed."""
    if pillow_heif is None:
        message = (
            "The image is a HEIC file, which is read only with pillow-heif installed (the extra `heic` of "
            "sam2-amg-server); install it, or save the image as JPEG."
        )
        raise RequestError(415, "unsupported_format", message)
    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return file[file.primary_index]


def heif_bytes(image: Any, pixels: int) -> int:
    """Bytes that decoding takes, beside the decoded pixels, where the largest image of the file has `pixels`."""
    each = _DEEP if image.info["bit_depth"] > 8 else _EIGHT_BITS
    return each * max(pixels, image.size[0] * image.size[1])


def read_heif(image: Any, stored: NDArray[np.uint8], stretch: str | None) -> None:
    """Writes an image as RGB to `stored`, uint8 [h, w, 3]. libheif turns it upright by its irot and imir boxes.
    EXIF's orientation is not applied, as ISO/IEC 23008-12 has it."""
    depth = 1 << image.info["bit_depth"]
    samples = np.asarray(image)  # uint8 or uint16 [h, w, bands] or [h, w]
    samples = samples.reshape(*samples.shape[:2], -1)
    bands = samples.shape[2]

    def rows_of(rows: slice) -> NDArray[Any]:
        part = samples[rows]
        if bands not in (2, 4):
            return part
        return over_white(part[..., :-1], part[..., -1:], depth - 1, image.premultiplied_alpha)

    write_scaled(rows_of, stored, stretch, depth)
