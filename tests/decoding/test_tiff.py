"""TIFF files of every kind: the exact picture, or a refusal that says what the file holds."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import ROOT, drawn_image
from numpy.typing import NDArray
from PIL import Image
from tiff_files import (
    ASSOCIATED,
    BLACK,
    CMYK,
    DEFLATE,
    LZW,
    PACKBITS,
    PALETTE,
    PLAIN,
    RGB,
    UNASSOCIATED,
    WHITE,
    directory,
    picture,
    tiff,
)

from bench.harness.image_bombs import encoded
from sam2_amg.config import Limits
from sam2_amg.decoding.decode import decode_image, inspect_image
from sam2_amg.decoding.walk_tiff import MOST_FIELDS
from sam2_amg.errors import RequestError

LIMITS = Limits()
INPUTS = ROOT.parent / "shared" / "faults" / "inputs"
H, W = 19, 37
BANDS = {WHITE: 1, BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4}
LAYOUTS: tuple[dict[str, Any], ...] = (
    {},
    {"planar": True},
    {"tile": 16},
    {"tile": 32, "planar": True, "big": True},
    {"big": True},
)


def decode(data: bytes, stretch: str | None = None) -> NDArray[np.uint8]:
    return decode_image(data, LIMITS, stretch)


def refusal(data: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    assert (caught.value.status, caught.value.code) == (415, "unsupported_pixels")
    assert "save it as" in caught.value.message
    return caught.value.message


def random_samples(bits: int, bands: int, extras: tuple[int, ...] = ()) -> NDArray:
    """Samples of all values, the least and the greatest among them."""
    random = np.random.default_rng(bits * 10 + bands)
    samples = random.integers(0, 1 << bits, (H, W, bands), np.uint16 if bits > 8 else np.uint8)
    samples[0, :2] = [[0], [(1 << bits) - 1]]
    if ASSOCIATED in extras:  # colours are no greater than their alpha
        alpha = samples[..., bands - 1 :].astype(np.uint32)
        samples[..., :-1] = samples[..., :-1] * alpha // ((1 << bits) - 1)
    return samples


def color_map(bits: int) -> NDArray[np.uint16]:
    return np.random.default_rng(bits).integers(0, 256, (1 << bits, 3)).astype(np.uint16) * 257


def kinds() -> Iterator[tuple[int, int, tuple[int, ...]]]:
    for bits in (1, 2, 4, 8, 10, 12, 14, 16):
        yield from ((bits, photometric, ()) for photometric in (WHITE, BLACK, RGB, CMYK))
        if bits <= 8:
            yield bits, PALETTE, ()
        if bits >= 8:
            yield from ((bits, colour, (kind,)) for colour in (BLACK, RGB) for kind in (ASSOCIATED, UNASSOCIATED, 0))
            yield bits, RGB, (0, UNASSOCIATED, 0)
            yield bits, CMYK, (UNASSOCIATED,)


@pytest.mark.parametrize("compression", [PLAIN, LZW, DEFLATE, PACKBITS])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_in_every_layout(order: str, compression: int) -> None:
    """Also read by tifffile where that can."""
    count = judged = 0
    layouts = LAYOUTS if compression == PLAIN else LAYOUTS[::3]
    for (bits, photometric, extras), layout in itertools.product(kinds(), layouts):
        samples = random_samples(bits, BANDS[photometric] + len(extras), extras)
        palette = color_map(bits) if photometric == PALETTE else None
        more = {} if palette is None else {320: ("H", palette.T.ravel().tolist())}
        expected = picture(samples, bits, photometric, extras, None if palette is None else palette >> 8)
        predictors = (1, 2) if compression in (LZW, DEFLATE) and bits in (8, 16) else (1,)
        for predictor in predictors:
            data = tiff(samples, bits, photometric, compression, order, predictor=predictor, extras=extras, more=more,
                        **layout)  # fmt: skip
            assert np.array_equal(decode(data), expected), (bits, photometric, extras, layout, predictor)
            count += 1
        if compression != LZW and bits in (8, 16) and judged < 40:
            read = np.atleast_3d(tifffile.imread(io.BytesIO(data), maxworkers=1))
            assert np.array_equal(np.moveaxis(read, 0, -1) if layout.get("planar") and len(read) < H else read, samples)
            judged += 1
    assert count > 80
    assert judged == (0 if compression == LZW else 40)


@pytest.mark.parametrize("compression", [PLAIN, LZW, PACKBITS, DEFLATE])
@pytest.mark.parametrize("bits", [1, 4, 8, 16])
def test_bits_in_reverse_order(bits: int, compression: int) -> None:
    samples = random_samples(bits, 1)
    data = tiff(samples, bits, BLACK, compression, fill_order=2)
    assert np.array_equal(decode(data), picture(samples, bits, BLACK))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "separated", "cielab", "ycbcr", "cfa"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8", "c8"])
def test_files_of_tifffile(kind: str, photometric: str) -> None:
    """Whole numbers of 8 and 16 bits are read, and all else is refused."""
    bands = {"rgb": 3, "separated": 4, "cielab": 3, "ycbcr": 3}.get(photometric, 1)
    samples = random_samples(16, bands).astype(kind) if kind[0] not in "fc" else random_samples(16, bands) / 65535
    samples = samples.astype(kind)
    shape = (H, W, bands) if bands > 1 else (H, W)
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"photometric": photometric} | ({"planarconfig": "contig"} if bands > 1 else {})
    tifffile.imwrite(buffer, samples.reshape(shape), metadata=None, **metadata)
    known = {"minisblack": BLACK, "miniswhite": WHITE, "rgb": RGB, "separated": CMYK}
    if kind in ("u1", "u2") and photometric in known:
        assert np.array_equal(decode(buffer.getvalue()), picture(samples, 8 * int(kind[1]), known[photometric]))
    elif kind != "u1" or photometric != "ycbcr":
        refusal(buffer.getvalue())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({339: ("H", [3])}, "floating-point numbers"),
        ({339: ("H", [2])}, "signed integers"),
        ({339: ("H", [6])}, "complex numbers"),
        ({258: ("H", [32])}, "integers of 32 bits"),
        ({259: ("H", [33003])}, "JPEG 2000"),
        ({259: ("H", [6])}, "old-style JPEG"),
        ({259: ("H", [9999])}, "compression 9999"),
        ({262: ("H", [8])}, "L*a*b*"),
        ({262: ("H", [32803])}, "raw data of a camera's sensor"),
        ({262: ("H", [34892])}, "raw data of a camera's sensor"),
        ({262: ("H", [4])}, "transparency mask"),
        ({259: ("H", [5]), 317: ("H", [3])}, "predictor"),
        ({259: ("H", [5]), 317: ("H", [2]), 258: ("H", [4])}, "predictor"),
        ({277: ("H", [4]), 258: ("H", [8] * 4), 338: ("H", [0] * 3)}, "4 bands"),
        ({277: ("H", [3]), 258: ("H", [5, 6, 5]), 262: ("H", [2])}, "several depths"),
        ({262: ("H", [5]), 277: ("H", [4]), 332: ("H", [2])}, "unknown colours"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_say_what_the_file_holds(fields: dict[int, tuple[str, list[int]]], words: str) -> None:
    assert words in refusal(tiff(random_samples(8, 1), 8, BLACK, more=fields))


def test_a_tiff_without_colours_is_refused() -> None:
    data = tiff(random_samples(8, 1), 8, BLACK)
    assert "unknown colours" in refusal(data.replace(b"\x06\x01\x03\0", b"\xff\xff\x03\0"))  # field 262


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extras", [(), (0, 0)], ids=str)
def test_three_bands_of_grey_are_rgb(extras: tuple[int, ...], bits: int, planar: bool) -> None:
    samples = random_samples(bits, 3)
    data = tiff(samples, bits, BLACK, extras=extras, planar=planar)
    assert np.array_equal(decode(data), picture(samples, bits, RGB))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("width", [8, 37])
def test_fax(width: int, compression: str) -> None:
    image = Image.fromarray(drawn_image(H, width)).convert("1")
    data = encoded(image, "TIFF", compression=compression)
    assert np.array_equal(decode(data), np.array(image.convert("RGB")))


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
def test_compressions_of_libtiff(compression: str) -> None:
    assert np.array_equal(decode(encoded(drawn_image(H, W), "TIFF", compression=compression)), drawn_image(H, W))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_within(mode: str) -> None:
    image = Image.fromarray(drawn_image(64, 80)).convert(mode)
    data = encoded(image, "TIFF", compression="jpeg", quality=90, tiffinfo={278: 16})
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(data), expected)
    assert np.abs(decode(data).astype(int) - np.array(image.convert("RGB"))).mean() < 20


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_ycbcr(compression: str | None) -> None:
    """Not of JPEG: converted by libtiff."""
    image = Image.fromarray(drawn_image(32, 48)).convert("YCbCr")
    decoded = decode(encoded(image, "TIFF", compression=compression, tiffinfo={530: (1, 1)}))
    assert np.abs(decoded.astype(int) - np.array(image.convert("RGB"))).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    stored = drawn_image(H, W)
    turns = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }  # fmt: skip
    data = tiff(stored, 8, RGB, more={274: ("H", [orientation])})
    assert np.array_equal(decode(data), turns[orientation])
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    assert np.array_equal(decode(tiff(stored, 8, RGB, more={700: ("B", xmp)})), turns[orientation])
    both = {274: ("H", [1]), 700: ("B", xmp)}
    assert np.array_equal(decode(tiff(stored, 8, RGB, more=both)), stored)


def with_thumbnail(photograph: dict[int, tuple[str, list[int]]], subfile: int = 254, chained: bool = False) -> bytes:
    """A first page that is a reduced image, and a photograph of 37 x 19 pixels in a SubIFD or on a page after it."""
    thumbnail, stored = drawn_image(5, 9).tobytes(), drawn_image(H, W).tobytes()
    layout = {258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [2]), 277: ("H", [3])}
    at = 8 + len(thumbnail) + len(stored) + (len(thumbnail) + len(stored)) % 2
    full = {254: ("I", [0]), 256: ("I", [W]), 257: ("I", [H]), 278: ("I", [H]), 273: ("I", [8 + len(thumbnail)])}
    full |= layout | {279: ("I", [len(stored)])} | photograph
    second = directory(full, at)
    first = {256: ("I", [9]), 257: ("I", [5]), 278: ("I", [5]), 273: ("I", [8]), 279: ("I", [len(thumbnail)])}
    first |= layout | {subfile: ("I", [1 if subfile == 254 else 2]), 274: ("H", [6])}
    first |= {} if chained else {330: ("I", [at])}
    start = at + len(second) + len(second) % 2
    page = bytearray(directory(first, start))
    if chained:
        link = 2 + 12 * len(first)
        page[link : link + 4] = at.to_bytes(4, "little")
    body = b"II*\0" + start.to_bytes(4, "little") + thumbnail + stored
    return body.ljust(at, b"\0") + second + b"\0" * (len(second) % 2) + bytes(page)


@pytest.mark.parametrize("subfile", [254, 255])
@pytest.mark.parametrize("chained", [False, True])
def test_the_photograph_behind_a_thumbnail(chained: bool, subfile: int) -> None:
    """As in DNG. The first page says how it is turned."""
    expected = np.rot90(drawn_image(H, W), -1)
    assert np.array_equal(decode(with_thumbnail({}, subfile, chained)), expected)
    upright = with_thumbnail({274: ("H", [1])}, subfile, chained)
    assert np.array_equal(decode(upright), drawn_image(H, W))
    raw = with_thumbnail({262: ("H", [32803]), 277: ("H", [1]), 258: ("H", [14])}, subfile, chained)
    assert "sensor" in refusal(raw)
    assert "develops" in refusal(raw)


def test_a_thumbnail_alone_is_the_picture() -> None:
    data = tiff(drawn_image(H, W), 8, RGB, more={254: ("I", [1])})
    assert np.array_equal(decode(data), drawn_image(H, W))


@pytest.mark.parametrize("stretch", [None, "minmax", "percentile"])
@pytest.mark.parametrize("bits", [12, 16])
def test_deep_colours_are_stretched(bits: int, stretch: str | None) -> None:
    samples = random_samples(bits, 3) // 9 + 50
    low, high = 0, (1 << bits) - 1
    if stretch == "minmax":
        low, high = int(samples.min()), int(samples.max())
    elif stretch == "percentile":
        low, high = (int(value) for value in np.percentile(samples, (2, 98), method="inverted_cdf"))
    expected = np.floor((samples.astype(float).clip(low, high) - low) * 255 / (high - low) + 0.5)
    assert np.array_equal(decode(tiff(samples, bits, RGB, LZW, predictor=2 if bits == 16 else 1), stretch), expected)


def test_a_directory_that_is_broken() -> None:
    sound = tiff(random_samples(8, 3), 8, RGB)
    with pytest.raises(RequestError) as caught:
        decode(sound[:-200])
    assert caught.value.code == "truncated_image"
    assert not decode(_changed({})).any()
    for change in ({273: ("I", [1])}, {279: ("I", [1 << 30] * 3)}, {273: ("I", [1 << 30] * 3)}, {278: ("I", [0])}):
        with pytest.raises(RequestError) as caught:
            decode(_changed(change))
        assert caught.value.code == "truncated_image", change


def _changed(change: dict[int, tuple[str, list[int]]]) -> bytes:
    """A grey file of three strips, some of whose fields are changed."""
    fields = {256: ("I", [W]), 257: ("I", [H]), 258: ("H", [8]), 262: ("H", [1]), 277: ("H", [1]), 278: ("I", [7])}
    fields |= {273: ("I", [8, 8, 8]), 279: ("I", [7 * W, 7 * W, 5 * W])}
    at = 8 + 7 * W + 1
    return b"II*\0" + at.to_bytes(4, "little") + bytes(7 * W + 1) + directory(fields | change, at)


def test_bombs_of_directories() -> None:
    with pytest.raises(RequestError) as caught:
        decode(b"II*\0\x08\0\0\0" + (MOST_FIELDS + 1).to_bytes(2, "little") + bytes(12 * MOST_FIELDS + 99))
    assert caught.value.code == "too_complex"
    loop = tiff(random_samples(8, 1), 8, BLACK, more={254: ("I", [1]), 330: ("I", [8] * 60)})
    with pytest.raises(RequestError):
        decode(loop)
    large = tiff(random_samples(8, 1), 8, BLACK, more={256: ("I", [60_000]), 257: ("I", [60_000])})
    with pytest.raises(RequestError) as caught:
        inspect_image(large, LIMITS)
    assert caught.value.code == "too_many_pixels"
    wide_tile = tiff(random_samples(8, 1), 8, BLACK, tile=16, more={322: ("I", [1 << 14]), 323: ("I", [1 << 16])})
    assert inspect_image(wide_tile, LIMITS).needs > 1 << 30


@pytest.mark.skipif(not INPUTS.exists(), reason="the folder of faults is not here")
def test_faults_that_were_seen() -> None:
    base = np.array(Image.open(INPUTS / "base.png").convert("RGB"))
    for name in ("x_im_planar16_le.tif", "x_im_planar16_lzw.tif", "t_dnglike.tif"):
        assert np.array_equal(decode((INPUTS / name).read_bytes()), base), name
    assert decode((INPUTS / "t_u16_miniswhite.tif").read_bytes()).mean() == pytest.approx(122.4, abs=0.05)
    for name in ("t_rgb_minisblack.tif", "x_la16.tif"):
        samples = tifffile.imread(INPUTS / name)
        bits, extras = samples.dtype.itemsize * 8, (UNASSOCIATED,) if samples.shape[2] == 2 else ()
        expected = picture(samples, bits, BLACK if extras else RGB, extras)
        assert np.array_equal(decode((INPUTS / name).read_bytes()), expected), name
    assert "floating-point" in refusal((INPUTS / "t_floatrgb.tif").read_bytes())
    assert "JPEG 2000" in refusal((INPUTS / "x_jp2k.tif").read_bytes())
