"""What is read of a file before a decoder opens it: bombs are refused, and what no decoder needs is left out."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from helpers import drawn_image, processor_seconds
from PIL import Image

from bench.harness.image_bombs import black_png, bombs, chunk, encoded, with_scans
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image, inspect_image
from sam2_amg.decoding.walk_jpeg import FEW_SCANS, MOST_FILL, MOST_SCANNED, MOST_SEGMENTS, walk_jpeg
from sam2_amg.decoding.walk_png import MOST_CHUNKS, walk_png
from sam2_amg.decoding.walk_webp import is_webp, webp_size
from sam2_amg.errors import RequestError

RGB = drawn_image(40, 60)
JPEG = encoded(RGB, "JPEG")
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x05\x02"


def refused(data: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        decode_image(data, Limits())
    assert (caught.value.status, caught.value.code) == (400, "too_complex")
    return caught.value.message


def pixels_of(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("name", [name for name, (_, answers) in bombs(16).items() if answers == {400}])
def test_bombs_of_headers_are_refused_at_once(name: str) -> None:
    data = bombs(1200 if name == "scans" else 16, 20)[name][0]
    assert processor_seconds(lambda: refused(data)) < 0.1


@pytest.mark.parametrize(
    ("part", "most"), [(b"\xff\xfe\x00\x02", MOST_SEGMENTS - 10), (b"\xff", MOST_FILL)], ids=["segments", "fill bytes"]
)
def test_as_many_parts_of_a_jpeg_as_may_be(part: bytes, most: int) -> None:
    assert np.array_equal(decode_image(JPEG[:2] + part * most + JPEG[2:], Limits()), pixels_of(JPEG))
    refused(JPEG[:2] + part * (most + 10) + JPEG[2:])


def test_as_many_chunks_of_a_png_as_may_be() -> None:
    assert decode_image(black_png(8, 8, 2, 3, chunk(b"abCd", b"") * (MOST_CHUNKS - 2)), Limits()).shape == (8, 8, 3)
    refused(black_png(8, 8, 2, 3, chunk(b"abCd", b"") * (MOST_CHUNKS + 1)))


def test_scans_are_bounded_by_the_pixels_that_they_go_through() -> None:
    few, many = with_scans(64, 500), with_scans(2048, MOST_SCANNED // 2048**2)
    assert decode_image(few, Limits()).shape == (64, 64, 3)
    assert "scans or more of 4194304 pixels" in refused(many)
    plain = encoded(Image.new("RGB", (4096, 4096)), "JPEG", progressive=True)
    assert plain.count(b"\xff\xda") < FEW_SCANS
    assert inspect_image(plain, Limits()).size == (4096, 4096)


def test_a_second_scan_after_an_only_one_is_not_gone_through() -> None:
    """Why the walk may end there."""
    data = JPEG[:-2] + SCAN * 10_000 + JPEG[-2:]

    def refuse() -> None:
        with pytest.raises(RequestError):
            decode_image(data, Limits())

    assert processor_seconds(refuse) < 0.1


def test_segments_that_no_decoder_needs_are_left_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    full = encoded(RGB, "JPEG", exif=exif, icc_profile=b"x" * 200_000, comment=b"text" * 1000, xmp=b"<xmp/>")
    assert len(full) > len(JPEG) + 200_000
    assert len(walk_jpeg(full).data) < len(JPEG) + 500
    assert np.array_equal(decode_image(full, Limits()), np.rot90(pixels_of(JPEG), -1))
    progressive = encoded(RGB, "JPEG", progressive=True, comment=b"text" * 1000)
    assert walk_jpeg(progressive).data == encoded(RGB, "JPEG", progressive=True)


@pytest.mark.parametrize(
    ("options", "buffered"),
    [({}, 0), ({"progressive": True, "subsampling": 0}, 6), ({"progressive": True, "subsampling": 2}, 3)],
    ids=str,
)
def test_bytes_of_coefficients(options: dict, buffered: float) -> None:
    walked = walk_jpeg(encoded(RGB, "JPEG", **options))
    assert (walked.buffered, walked.lacks_end) == (buffered, False)


@pytest.mark.parametrize(
    "more",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"tEXt", b"Comment\0text")[:-1] + b"?",
        chunk(b"eXIf", b"Exif")[:-1] + b"?",
        chunk(b"gAMA", b""),
    ],
    ids=["zTXt", "iTXt", "iCCP", "wrong checksum", "wrong checksum of EXIF", "gAMA of no bytes"],
)
def test_what_is_wrong_beside_the_pixels_of_a_png_harms_none(more: bytes) -> None:
    plain = encoded(RGB, "PNG")
    assert walk_png(plain) == plain
    assert walk_png(plain[:33] + more + plain[33:]) == plain
    assert np.array_equal(decode_image(plain[:33] + more + plain[33:], Limits()), RGB)
    assert np.array_equal(decode_image(plain[:-12] + more + plain[-12:], Limits()), RGB)


def test_a_wrong_checksum_of_the_header_is_refused() -> None:
    data = bytearray(encoded(RGB, "PNG"))
    data[32] ^= 1
    with pytest.raises(RequestError) as caught:
        decode_image(bytes(data), Limits())
    assert caught.value.code == "not_an_image"


def test_an_orientation_in_the_text_of_a_png_is_read() -> None:
    text = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    data = encoded(RGB, "PNG")
    assert np.array_equal(decode_image(data[:33] + chunk(b"iTXt", text) + data[33:], Limits()), np.rot90(RGB, -1))


def test_an_animated_png_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert b"fdAT" in data
    assert b"fdAT" not in walk_png(data)
    assert np.array_equal(decode_image(data, Limits()), np.array(frames[0]))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"lossless": True}),
        ("RGBA", {}),
        ("RGBA", {"lossless": True}),
        ("RGB", {"exif": b"Exif\0\0"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(1, 1), (300, 5), (16, 1025)])
def test_sizes_of_webp_files(size: tuple[int, int], mode: str, options: dict) -> None:
    data = encoded(Image.new(mode, size), "WEBP", **options)
    assert is_webp(data)
    assert webp_size(data) == size
    assert not is_webp(JPEG)


@pytest.mark.parametrize("data", [b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8 " + bytes(40)], ids=len)
def test_a_webp_without_a_size_is_no_image(data: bytes) -> None:
    assert webp_size(data) is None
    with pytest.raises(RequestError) as caught:
        decode_image(data, Limits())
    assert caught.value.code == "not_an_image"
