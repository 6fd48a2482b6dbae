"""Every format and pixel type that is accepted, as real files, and every refusal."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from helpers import ROOT, drawn_image
from jpeg_files import flat_jpeg
from PIL import Image, ImageOps

from bench.harness.image_bombs import chunk, encoded
from sam2_amg.config import Limits
from sam2_amg.decoding import decode
from sam2_amg.decoding.decode import decode_image
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.errors import RequestError

LIMITS = Limits()
INPUTS = ROOT.parent / "shared" / "faults" / "inputs"
RGB = drawn_image(40, 60)
SMOOTH = np.mgrid[100:140, 60:120][[0, 1, 0]].transpose(1, 2, 0).astype(np.uint8)  # what JPEG hardly changes


def error_of(data: bytes, limits: Limits = LIMITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, limits)
    return caught.value


@pytest.mark.parametrize(
    ("image_format", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
    ids=str,
)
def test_lossless_formats(image_format: str, options: dict) -> None:
    decoded = decode_image(encoded(RGB, image_format, **options), LIMITS)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, RGB)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_jpeg(options: dict) -> None:
    decoded = decode_image(encoded(SMOOTH, "JPEG", quality=95, **options), LIMITS)
    assert np.abs(decoded.astype(int) - SMOOTH).max() < 8


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 33), (64, 48), (301, 203)], ids=str)
def test_jpeg_has_the_pixels_that_pillow_reads(size: tuple[int, int], progressive: bool, subsampling: int) -> None:
    """sam2 is given what Pillow reads, and masks are to be the same."""
    data = encoded(drawn_image(*size), "JPEG", progressive=progressive, subsampling=subsampling, quality=70)
    assert np.array_equal(decode_image(data, LIMITS), np.array(Image.open(io.BytesIO(data))))


LAYOUTS = ("444", "422", "420", "440", "411", "Gray")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (9, 17), (17, 9), (203, 301)], ids=str)
def test_every_layout_of_chroma_has_the_pixels_that_pillow_reads(size: tuple[int, int], layout: str) -> None:
    image = drawn_image(*size)
    pixels, space = (image[:, :, :1].copy(), "GRAY") if layout == "Gray" else (image, "RGB")
    data = simplejpeg.encode_jpeg(pixels, quality=70, colorspace=space, colorsubsampling=layout)
    assert simplejpeg.decode_jpeg_header(data)[3].lower() == layout.lower()
    assert np.array_equal(decode_image(data, LIMITS), np.array(Image.open(io.BytesIO(data)).convert("RGB")))


SAMPLINGS = {
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:4:0": ((1, 2), (1, 1), (1, 1)),
    "4:1:1": ((4, 1), (1, 1), (1, 1)),
    "4:1:0": ((4, 2), (1, 1), (1, 1)),
    "tall": ((1, 4), (1, 1), (1, 1)),
    "uneven": ((2, 2), (2, 1), (1, 2)),
    "fine chroma": ((1, 1), (2, 2), (2, 2)),
    "grey": ((1, 1),),
    "grey of odd factors": ((2, 2),),
    "four": ((1, 1),) * 4,
    "four, 4:2:0": ((2, 2), (1, 1), (1, 1), (2, 2)),
}


@pytest.mark.parametrize("adobe", [None, 0, 1, 2])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(8, 8), (67, 45)], ids=str)
def test_every_sampling_has_the_pixels_that_pillow_reads(
    size: tuple[int, int], sampling: str, adobe: int | None
) -> None:
    """With Adobe's segment, too, which says that colours are RGB, YCbCr, CMYK or YCCK."""
    data = flat_jpeg(SAMPLINGS[sampling], size, adobe)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.ptp(expected) > 100 or size == (8, 8)
    assert np.array_equal(decode_image(data, LIMITS), expected)


def test_components_named_rgb_are_rgb() -> None:
    data = flat_jpeg(SAMPLINGS["4:4:4"], (24, 16), ids=b"RGB")
    expected = np.array(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_image(data, LIMITS), expected)
    assert not np.array_equal(expected, decode_image(flat_jpeg(SAMPLINGS["4:4:4"], (24, 16)), LIMITS))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 5])
def test_grey_and_cmyk_have_the_pixels_that_pillow_reads(mode: str, progressive: bool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(drawn_image(17, 9)).convert(mode)
    data = encoded(image, "JPEG", progressive=progressive, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode_image(data, LIMITS), np.array(expected))


def test_colour_jpegs_are_read_by_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow reads them, too, and would hide that they no longer are."""
    monkeypatch.setattr(decode, "_convert", None)
    for data in (encoded(RGB, "JPEG"), encoded(RGB, "JPEG", progressive=True), encoded(Image.new("L", (9, 9)), "JPEG")):
        assert decode_image(data, LIMITS).size


def test_a_jpeg_that_lacks_nothing_but_its_end_marker() -> None:
    data = encoded(drawn_image(120, 90), "JPEG", quality=95)
    assert data.endswith(b"\xff\xd9")
    for cut in (data[:-2], data[:-1]):
        assert np.array_equal(decode_image(cut, LIMITS), decode_image(data, LIMITS))
    assert error_of(data[:-40]).code == "truncated_image"
    progressive = encoded(drawn_image(120, 90), "JPEG", progressive=True)  # a scan more may be missing, unseen
    assert error_of(progressive[:-2]).code == "truncated_image"


@pytest.mark.skipif(not INPUTS.exists(), reason="the folder of faults is not here")
@pytest.mark.parametrize("name", ["p_ztxt3m.png", "p_badcrc_text.png", "j_no_eoi.jpg", "x_440.jpg", "x_xmp6.jpg"])
def test_faults_that_were_seen(name: str) -> None:
    pixels = decode_image((INPUTS / name).read_bytes(), LIMITS)
    if name == "x_xmp6.jpg":
        assert pixels.shape == (300, 200, 3)
        pixels = np.rot90(pixels)
    base = np.array(Image.open(INPUTS / "base.png").convert("RGB")).astype(int)
    assert pixels.shape == base.shape
    assert np.abs(pixels - base).mean() < (0.1 if name.endswith("png") else 4)
    if name == "x_440.jpg":
        assert np.array_equal(pixels, np.array(Image.open(INPUTS / name)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "CMYK"])
def test_images_of_several_bands_are_converted_whole(mode: str) -> None:
    """Rows are converted a band at a time."""
    image = Image.fromarray(drawn_image(700, 1100))
    grey = np.array(image.convert("L")).astype(np.uint16) * 257
    image = Image.fromarray(grey) if mode == "I;16" else image.convert(mode)
    data = encoded(image, "TIFF")
    expected = np.array(Image.fromarray((grey // 257).astype(np.uint8)) if mode == "I;16" else image.convert("RGB"))
    decoded = decode_image(data, LIMITS)
    assert np.array_equal(decoded, np.stack([expected] * 3, -1) if mode == "I;16" else expected)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(40, 60), (1, 5), (5, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation: int, size: tuple[int, int], image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(drawn_image(*size), image_format, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decode_image(data, LIMITS)
    assert np.array_equal(decoded, expected)
    assert np.array_equal(torch.from_numpy(decoded), expected)  # no step backwards is left in it


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_a_jpeg_that_ends_too_early(share: float) -> None:
    data = encoded(drawn_image(120, 90), "JPEG", quality=95)
    error = error_of(data[: int(len(data) * share)])
    assert (error.status, error.code) == (400, "truncated_image")


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode_image(data, LIMITS), np.array(frames[0]))


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("place", [(0, 0), (5, 3), (17, 9), (30, 20)], ids=str)
def test_a_gif_is_white_around_its_first_frame(place: tuple[int, int], transparent: bool) -> None:
    """As in browsers, which ignore the background colour of a GIF."""
    frame = Image.new("P", (10, 6), 1)
    frame.putpalette([200, 0, 0, 0, 90, 0])
    data = bytearray(encoded(frame, "GIF", background=0, **({"transparency": 1} if transparent else {})))
    data[6:10] = struct.pack("<HH", 40, 26)  # the screen
    at = data.index(b",\0\0\0\0\x0a\0\x06\0")
    data[at + 1 : at + 5] = struct.pack("<HH", *place)
    expected = np.full((26, 40, 3), 255, np.uint8)
    if not transparent:
        expected[place[1] : place[1] + 6, place[0] : place[0] + 10] = [0, 90, 0]
    assert np.array_equal(decode_image(bytes(data), LIMITS), expected)


def test_mpo_gives_its_first_picture() -> None:
    first, second = (Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    decoded = decode_image(encoded(first, "MPO", save_all=True, append_images=[second]), LIMITS)
    assert decoded[0, 0, 0] > 200


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(SMOOTH).convert(mode)
    image_format = "JPEG" if mode == "YCbCr" else "TIFF"
    decoded = decode_image(encoded(image, image_format), LIMITS)
    assert np.abs(decoded.astype(int) - np.array(image.convert("RGB"))).max() < 8


def test_cmyk_jpeg() -> None:
    decoded = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMITS)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_white(mode: str, image_format: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    options = {"lossless": True} if image_format == "WEBP" else {}
    decoded = decode_image(encoded(image.convert(mode), image_format, **options), LIMITS)
    assert decoded[0, :, 0].tolist() == pytest.approx([255, 0, 127], abs=1)


def test_palette_with_alpha_lies_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert decode_image(encoded(image.quantize(8), "PNG"), LIMITS)[0, :, 0].tolist() == [255, 0]


def test_transparent_palette_colour_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    for image_format in ("PNG", "GIF"):
        decoded = decode_image(encoded(image, image_format, transparency=0), LIMITS)
        assert decoded[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_sixteen_bits_are_scaled() -> None:
    grey = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    for image_format in ("PNG", "TIFF"):
        decoded = decode_image(encoded(grey, image_format), LIMITS)
        assert decoded[0, :, 1].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = Image.fromarray(RGB)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(stored, "PNG", exif=exif), LIMITS), RGB)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_xmp_counts_where_exif_has_none(orientation: int, image_format: str) -> None:
    """As Pillow's `getexif` has it."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="%d"/></x:xmpmeta>' % orientation
    data = with_xmp(image_format, xmp)
    if image_format == "AVIF":  # its boxes count alone
        expected = Image.open(io.BytesIO(data))
    else:
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert (expected.size == (40, 60)) == (orientation > 4)
    assert np.array_equal(decode_image(data, LIMITS), np.array(expected.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 1
    assert decode_image(with_xmp(image_format, xmp, exif=exif), LIMITS).shape == RGB.shape


def with_xmp(image_format: str, xmp: bytes, **options: Any) -> bytes:
    """A file of RGB with XMP in it."""
    if image_format != "PNG":
        return encoded(RGB, image_format, xmp=xmp, **options)
    data = encoded(RGB, "PNG", **options)
    return data[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + data[33:]


def exif_block(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Raw EXIF of entries (tag, type, count, value of four bytes), as a careless camera may write it."""
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0\0\0\0"


def test_exif_that_is_wrong_around_the_orientation() -> None:
    stored = Image.fromarray(RGB).transpose(Image.Transpose.ROTATE_90)
    sideways = (0x0112, 3, 1, b"\6\0\0\0")
    resolution_as_text = (0x011A, 2, 3, b"72\0\0")
    width_below_zero = (0x0100, 8, 1, struct.pack("<hh", -5, 0))
    for image_format in ("PNG", "WEBP"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        data = encoded(stored, image_format, exif=exif_block(sideways, resolution_as_text), **options)
        assert np.array_equal(decode_image(data, LIMITS), RGB)
        data = encoded(stored, image_format, exif=exif_block(width_below_zero, sideways), **options)
        assert np.array_equal(decode_image(data, LIMITS), RGB)
        for block in (b"Exif\0\0garbage", exif_block((0x0112, 3, 1, b"\x63\0\0\0"))):
            assert np.array_equal(decode_image(encoded(RGB, image_format, exif=block, **options), LIMITS), RGB)


def test_one_pixel() -> None:
    assert decode_image(encoded(RGB[:1, :1], "PNG"), LIMITS).shape == (1, 1, 3)


@pytest.mark.parametrize("data", [b"no image", b"\0" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"], ids=str)
def test_no_image(data: bytes) -> None:
    assert error_of(data).status == 415
    assert error_of(data).code == "not_an_image"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated(image_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(noise, image_format)
    error = error_of(data[: len(data) // 2])
    assert error.status in (400, 415)
    assert error.code in ("truncated_image", "not_an_image")


def test_pixel_limit() -> None:
    data = encoded(RGB, "PNG")
    assert decode_image(data, Limits(max_pixels=40 * 60)).shape == RGB.shape
    error = error_of(data, Limits(max_pixels=40 * 60 - 1))
    assert (error.status, error.code) == (413, "too_many_pixels")
    assert "60 x 40" in error.message
    assert error_of(data, Limits(max_side=59)).code == "too_many_pixels"


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = bytearray(encoded(Image.new("1", (1, 1)), "BMP"))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2  # width and height in the header
    assert error_of(bytes(bomb)).code == "too_many_pixels"


def test_pixels_without_a_range_are_refused() -> None:
    assert error_of(encoded(Image.new("F", (4, 4)), "TIFF")).code == "unsupported_pixels"
    assert error_of(encoded(Image.new("I", (4, 4), 70_000), "TIFF")).code == "unsupported_pixels"


def test_photographs_decode_as_pillow_reads_them() -> None:
    for path in PHOTOGRAPHS.glob("*.jpg"):
        assert np.array_equal(decode_image(path.read_bytes(), LIMITS), np.array(Image.open(path)))


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no huge pages")
def test_decoded_photographs_are_advised_to_lie_in_huge_pages() -> None:
    """In a process of its own, with all that a server imports: torch looks at its first tensor, and never again."""
    program = """
        from pathlib import Path
        import sam2_amg.server.startup
        from sam2_amg.demo import EXAMPLE
        from sam2_amg.config import Limits
        from sam2_amg.decoding.decode import decode_image
        from sam2_amg.pipeline.host_memory import use_huge_pages

        use_huge_pages()
        pixels = decode_image((EXAMPLE.parent / "truck.jpg").read_bytes(), Limits())
        middle = pixels.ctypes.data + pixels.nbytes // 2
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                start, end = (int(number, 16) for number in first.split("-"))
                inside = start <= middle < end
            elif inside and first == "VmFlags:":
                print(line)
    """
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    flags = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert "hg" in flags.stdout.decode().split()
