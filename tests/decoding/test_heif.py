"""HEIC files built as telephones build them, and AVIF: right side up, the right picture of several, and bounded."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pillow_heif
import pytest
from helpers import ROOT, processor_seconds
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.harness.image_bombs import encoded
from sam2_amg.config import Limits
from sam2_amg.decoding import STRETCHES
from sam2_amg.decoding.decode import decode_image, inspect_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.decoding.walk_heif import MOST_BOXES, heif_kind, heif_size
from sam2_amg.errors import RequestError

LIMITS = Limits()
Y, X = np.mgrid[0:80, 0:120]
RGB = np.stack([X * 2, Y * 3, X + Y], -1).astype(np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {
    "HEIC": {"quality": -1, "chroma": 444},
    "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 9},
}


def file_of(kind: str, image: Image.Image | NDArray = RGB, **options: Any) -> bytes:
    return encoded(image, kind, **LOSSLESS[kind], **options)


def differs(data: bytes, expected: Any) -> int:
    """By how many levels at most the decoded picture differs; the formats' colours are no whole numbers."""
    decoded = decode_image(data, LIMITS)
    assert decoded.shape == np.asarray(expected).shape
    return int(np.abs(decoded.astype(int) - np.asarray(expected)).max())


def error_of(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    assert "\n" not in caught.value.message
    return caught.value


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_payload(data: bytes, box: bytes, payload: bytes) -> bytes:
    """The file with other contents of a box that has a version and flags."""
    at = data.index(box) + 8
    return data[:at] + payload + data[at + len(payload) :]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_boxes_turn_the_picture(kind: str, orientation: int) -> None:
    """By irot and imir. EXIF says the same in these files, and is not applied once more."""
    exif = exif_of(orientation)
    data = file_of(kind, exif=exif.tobytes())
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    plain = Image.fromarray(RGB)
    plain.getexif()[0x0112] = orientation
    assert differs(data, ImageOps.exif_transpose(plain)) <= 3


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_exif_alone_turns_nothing(kind: str) -> None:
    data = file_of(kind, exif=exif_of(6).tobytes())
    at = data.index(b"irot") + 4
    assert data[at] & 3
    still = data[:at] + b"\0" + data[at + 1 :]
    assert differs(still, RGB) <= 3


def test_a_picture_in_tiles_with_a_thumbnail() -> None:
    """As iPhones write them: a grid, turned, with a thumbnail and EXIF."""
    image = Image.fromarray(np.tile(RGB, (3, 2, 1)))
    image.info["thumbnails"] = [64]
    data = file_of("HEIC", image, tile_size=64, exif=exif_of(6).tobytes())
    assert b"grid" in data
    assert b"thmb" in data
    assert heif_size(data) == image.size == (240, 240)
    assert differs(data, np.rot90(np.asarray(image), -1)) <= 3


@pytest.mark.parametrize("primary", [0, 1])
def test_the_primary_image_of_several(primary: int) -> None:
    pictures = [np.full((40, 60, 3), 200, np.uint8), RGB]
    file = pillow_heif.from_pillow(Image.fromarray(pictures[0]))
    file.add_from_pillow(Image.fromarray(pictures[1]))
    buffer = io.BytesIO()
    file.save(buffer, primary_index=primary, **LOSSLESS["HEIC"])
    assert differs(buffer.getvalue(), pictures[primary]) <= 3


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_alpha_lies_over_white(kind: str) -> None:
    image = np.concatenate([RGB, (X[:, :, None] * 2).astype(np.uint8)], 2)
    alpha = image[..., 3:].astype(float) / 255
    assert differs(file_of(kind, image), np.round(image[..., :3] * alpha + 255 * (1 - alpha))) <= 4


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_grey(kind: str) -> None:
    grey = np.ascontiguousarray(RGB[..., 0])
    assert differs(file_of(kind, grey), np.repeat(grey[..., None], 3, 2)) <= 3


@pytest.mark.parametrize("stretch", [None, *STRETCHES])
def test_ten_bits(stretch: str | None) -> None:
    """As pillow-heif reads them, and scaled from there."""
    buffer = io.BytesIO()
    wide = (RGB.astype(np.uint16) * 257) // 3
    pillow_heif.from_bytes("RGB;16", (120, 80), wide.tobytes()).save(buffer, **LOSSLESS["HEIC"])
    file = pillow_heif.open_heif(buffer.getvalue(), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    assert file.info["bit_depth"] == 10
    samples = np.asarray(file[0]).astype(np.int64)
    ends = {None: (0, 1023), "minmax": (samples.min(), samples.max())}
    low, high = ends.get(stretch) or np.percentile(samples, (2, 98), method="inverted_cdf").astype(int)
    expected = np.floor((samples.clip(low, high) - low) * 255 / (high - low) + 0.5)
    assert np.array_equal(decode_image(buffer.getvalue(), LIMITS, stretch), expected)


def test_kinds_by_brand() -> None:
    assert heif_kind(file_of("HEIC")) == "HEIC"
    assert heif_kind(file_of("AVIF")) == "AVIF"
    assert heif_kind(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif") == "AVIF"
    for other in (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", b"", b"\xff\xd8\xff"):
        assert heif_kind(other) is None
    assert error_of(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100)).code == "not_an_image"


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_sizes_are_bounded_before_anything_is_decoded(kind: str) -> None:
    data = file_of(kind)
    bomb = with_payload(data, b"ispe", struct.pack(">II", 60_000, 60_000))
    assert error_of(bomb).code == "too_many_pixels"
    assert processor_seconds(lambda: error_of(bomb)) < 0.1
    large = with_payload(data, b"ispe", struct.pack(">II", 8000, 8000))
    assert inspect_image(large, LIMITS).needs > 8000 * 8000 * 17
    assert error_of(with_payload(data, b"ispe", bytes(8))).code == "truncated_image"


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_a_picture_that_is_larger_than_it_says(kind: str) -> None:
    """The process's bound on memory holds for what stands in the bitstream."""
    fast = {"speed": 10} if kind == "AVIF" else {"enc_params": {"preset": "ultrafast"}}
    large = encoded(Image.new("RGB", (2048, 2048)), kind, **fast)
    lying = with_payload(large, b"ispe", struct.pack(">II", 64, 64))
    with DecoderPool(Limits(decoders=1)) as pool:
        try:
            with pool.decoded(lying, time.monotonic() + 10) as image:
                outcome = str(image.shape)
        except RequestError as error:
            outcome = error.code
        assert outcome in ("(64, 64, 3)", "truncated_image", "too_much_memory")
        with pool.decoded(file_of(kind)) as image:
            assert image.shape == RGB.shape


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_files_that_break_off(kind: str) -> None:
    data = file_of(kind)
    for share in (0.01, 0.1, 0.3, 0.6, 0.95):
        assert error_of(data[: int(len(data) * share)]).code in ("truncated_image", "not_an_image")


def test_too_many_boxes() -> None:
    head = file_of("HEIC")[:28]
    assert error_of(head + struct.pack(">I4s", 8, b"free") * (MOST_BOXES + 1)).code == "too_complex"


def test_without_pillow_heif_a_heic_is_refused_with_the_way_out() -> None:
    """In a process in which it cannot be imported; AVIF is read all the same."""
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from sam2_amg.config import Limits; from sam2_amg.decoding.decode import decode_image\n"
        "from sam2_amg.errors import RequestError\n"
        "heic, avif = (bytes.fromhex(line) for line in sys.stdin.read().split())\n"
        "print(decode_image(avif, Limits()).shape)\n"
        "try: decode_image(heic, Limits())\n"
        "except RequestError as error: print(error.status, error.code, error.message)\n"
    )
    files = "\n".join(file_of(kind).hex() for kind in ("HEIC", "AVIF"))
    done = subprocess.run([sys.executable, "-c", program], input=files, cwd=ROOT, capture_output=True, text=True)
    shape, refusal = done.stdout.splitlines()
    assert shape == "(80, 120, 3)"
    assert refusal.startswith("415 unsupported_format")
    assert "`heic`" in refusal
    assert "JPEG" in refusal
