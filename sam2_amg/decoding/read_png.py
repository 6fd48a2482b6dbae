"""What Pillow does not read rightly of PNG files: the low bytes of 16-bit colours, and some transparent colours."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam2_amg.decoding.colours import over_white
from sam2_amg.decoding.stretch import write_scaled
from sam2_amg.decoding.walk_png import SIGNATURE

_GREY, _RGB, _GREY_ALPHA = 0, 2, 4
# Mode of Pillow, and what its PNG reader takes the bytes for: by colour type, one image or those of high and low bytes.
_READ = {
    0: (("I;16", "I;16B"),),
    2: (("RGB", "RGB;16B"), ("RGB", "RGB;16L")),
    4: (("RGBA", "RGBA"),),  # four bytes: grey and alpha
    6: (("RGBA", "RGBA;16B"), ("RGBA", "RGBA;16L")),
}


@dataclass(frozen=True)
class WidePng:
    """An image of 16 bits, opened without its pixels, its colour type, and whether it is interlaced."""

    image: Image.Image
    colour: int
    interlaced: bool

    @property
    def needs(self) -> int:
        """Bytes that reading takes, beside the decoded pixels."""
        each = 2 if self.colour == _GREY else 4 * len(_READ[self.colour])
        return each * self.image.width * self.image.height


def is_wide(data: bytes) -> bool:
    """Whether a PNG has 16 bits a sample."""
    return data[24] == 16


def open_wide_png(data: bytes) -> WidePng:
    """What stands in a PNG of 16 bits beside its pixels, be it before or behind them."""
    kept, at = [data[: len(SIGNATURE)]], len(SIGNATURE)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] != b"IDAT":
            kept.append(data[at:end])
        at = end
    return WidePng(Image.open(io.BytesIO(b"".join(kept)), formats=("PNG",)), data[25], data[28] == 1)


def correct_transparency(data: bytes, image: Image.Image) -> None:
    """Gives an open PNG of up to 8 bits its transparent colour as Pillow's pixels have it. Pillow scales grey of 2 and
    4 bits to 8, and leaves the transparent value as it stands."""
    value, bits = image.info.get("transparency"), data[24]
    if image.mode == "L" and isinstance(value, int):
        top = (1 << bits) - 1
        image.info["transparency"] = (value & top) * 255 // top
    elif image.mode == "RGB" and isinstance(value, tuple):
        image.info["transparency"] = tuple(band & 255 for band in value)


def read_wide_png(data: bytes, png: WidePng, stored: NDArray[np.uint8], stretch: str | None) -> None:
    """Writes it as RGB to `stored`, uint8 [h, w, 3]. Raises ValueError for broken pixels."""
    packed = _pixels(data)
    images = [
        Image.frombytes(mode, png.image.size, packed, "zip", (raw, png.interlaced)) for mode, raw in _READ[png.colour]
    ]
    transparent = png.image.info.get("transparency")

    def rows_of(rows: slice) -> NDArray[np.uint16]:
        samples = _samples([np.asarray(image.crop((0, rows.start, image.width, rows.stop))) for image in images])
        if png.colour not in (_GREY, _RGB):
            return over_white(samples[..., :-1], samples[..., -1:], 65535)
        if transparent is not None:
            samples = np.where((samples == np.asarray(transparent)).all(2, keepdims=True), np.uint16(65535), samples)
        return samples

    write_scaled(rows_of, stored, stretch)


def _samples(parts: list[NDArray[Any]]) -> NDArray[np.uint16]:
    """uint16 [n, w, bands] of what Pillow has read."""
    if len(parts) == 2:
        samples = parts[0].astype(np.uint16)
        samples <<= 8
        samples |= parts[1]
        return samples
    if parts[0].ndim == 2:
        return parts[0].astype(np.uint16)[:, :, None]
    return np.ascontiguousarray(parts[0]).view(">u2").astype(np.uint16)


def _pixels(data: bytes) -> bytes:
    """The contents of all IDAT chunks in turn."""
    parts, at = [], len(SIGNATURE)
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            parts.append(memoryview(data)[at + 8 : at + 8 + size])
        elif parts:
            break
        at += size + 12
    return b"".join(parts)
