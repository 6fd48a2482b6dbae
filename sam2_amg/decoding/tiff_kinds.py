"""Which TIFF pages are read, and what their fields mean; what is said about the others."""

from __future__ import annotations

from sam2_amg.decoding import walk_tiff as tiff
from sam2_amg.decoding.refusals import truncated, unsupported_pixels
from sam2_amg.decoding.walk_tiff import TiffPage

_RAW, FAX, JPEG = (1, 5, 8, 32773, 32946, 34925, 50000), (2, 3, 4), 7
_PREDICTED = (5, 8, 32946, 34925, 50000)  # by the others a predictor is ignored, as libtiff does
MINISWHITE, MINISBLACK, _RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {MINISWHITE: 1, MINISBLACK: 1, _RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}  # bands besides extra ones
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_BANDS = 32
_COMPRESSIONS = {6: "old-style JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC",
                 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy JPEG of a DNG", 34676: "SGI LogL",
                 34677: "SGI LogLuv"}  # fmt: skip
_MEANINGS = {4: "a transparency mask", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
             32803: "raw data of a camera's sensor", 34892: "raw data of a camera's sensor (linear)",
             32844: "LogL values", 32845: "LogLuv values", 51177: "a depth map"}  # fmt: skip
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 4: "samples of an undefined type",
            5: "complex integers", 6: "complex numbers"}  # fmt: skip


def require_readable(page: TiffPage) -> None:
    """Raises RequestError unsupported_pixels (415) for pages that are not read, and truncated_image for those that
    make no sense."""
    compression, photometric = page.value(tiff.COMPRESSION, 1), page.value(tiff.PHOTOMETRIC, -1)
    kinds = set(page.values(tiff.SAMPLE_FORMAT).tolist()) - {1}
    if photometric in _MEANINGS:
        raise unsupported_pixels(f"{_MEANINGS[photometric]} (TIFF)", _instead(photometric))
    if kinds:
        raise unsupported_pixels(f"{_FORMATS.get(min(kinds), 'samples of an unknown type')} (TIFF)")
    if compression not in (*_RAW, *FAX, JPEG):
        raise unsupported_pixels(f"{_COMPRESSIONS.get(compression, f'compression {compression}')} in a TIFF")
    if photometric not in _COLOURS or page.value(tiff.INK_SET, 1) != 1:
        raise unsupported_pixels("a TIFF of unknown colours (PhotometricInterpretation or InkSet)")
    if not 1 <= page.bits <= 16:
        depth = f"integers of {page.bits} bits" if page.bits else "bands of several depths"
        raise unsupported_pixels(f"{depth} (TIFF)")
    if not _COLOURS[photometric] <= page.bands <= _MOST_BANDS or (colour_bands(page) == 1 and page.bands > 2):
        raise unsupported_pixels(f"{page.bands} bands of samples (TIFF)", "a picture of grey, RGB or CMYK")
    _require_known_layout(page, compression, photometric)


def _instead(photometric: int) -> str:
    return (
        "8- or 16-bit RGB, by the program that develops raw photographs" if photometric > 32768 else "8- or 16-bit RGB"
    )


def _require_known_layout(page: TiffPage, compression: int, photometric: int) -> None:
    """Refuses what is rare and ambiguous: raises RequestError unsupported_pixels."""
    whole = page.bits == 8 and not is_planar(page)
    refused = {
        "fax data of several bits (TIFF)": compression in FAX and (page.bits, page.bands) != (1, 1),
        "JPEG data of other than 8 bits (TIFF)": compression == JPEG and page.bits != 8,
        "JPEG data with extra bands (TIFF)": compression == JPEG and page.bands != _COLOURS[photometric],
        "YCbCr of this layout (TIFF)": photometric == YCBCR and not (whole and page.bands == 3),
        "a palette of 16 bits (TIFF)": photometric == PALETTE and page.bits > 8,
        "differences of this depth (TIFF predictor)": predictor_of(page) != 1
        and photometric != YCBCR
        and (predictor_of(page) != 2 or page.bits not in (8, 16)),
        "premultiplied MinIsWhite (TIFF)": photometric == MINISWHITE and alpha_of(page) == (1, True),
        "tiles whose rows are no whole bytes (TIFF)": page.tile is not None and page.tile[0] * page.bits % 8 != 0,
    }
    for what, is_so in refused.items():
        if is_so:
            raise unsupported_pixels(what)
    if photometric == PALETTE and page.values(tiff.COLOR_MAP, 768).size < 3 << page.bits:
        raise truncated("the TIFF's palette is too short")


def is_planar(page: TiffPage) -> bool:
    """Whether each band lies by itself."""
    return page.value(tiff.PLANAR, 1) == 2 and page.bands > 1


def predictor_of(page: TiffPage) -> int:
    """1 where samples are stored as they are, 2 where their horizontal differences are."""
    return page.value(tiff.PREDICTOR, 1) if page.value(tiff.COMPRESSION, 1) in _PREDICTED else 1


def is_raw(page: TiffPage) -> bool:
    """Whether samples are handed out as they lie in the file."""
    return page.value(tiff.COMPRESSION, 1) in _RAW and page.value(tiff.PHOTOMETRIC, 1) != YCBCR


def colour_bands(page: TiffPage) -> int:
    """How many bands are colours. Three bands that are said to be grey are RGB: so programs write arrays."""
    photometric = page.value(tiff.PHOTOMETRIC, 1)
    as_array = photometric == MINISBLACK and page.bands == 3 and not page.values(tiff.EXTRA_SAMPLES).any()
    return 3 if as_array else _COLOURS[photometric]


def alpha_of(page: TiffPage) -> tuple[int, bool] | None:
    """Which band is alpha, and whether colours are premultiplied by it; None where none is."""
    colours = colour_bands(page)
    extras = page.values(tiff.EXTRA_SAMPLES).tolist()
    if not extras and page.bands == colours + 1 == 4:
        return colours, False  # as Pillow reads RGB of four bands that does not say what the fourth is
    for i, kind in enumerate(extras[: page.bands - colours]):
        if kind in (_ASSOCIATED, _UNASSOCIATED):
            return colours + i, kind == _ASSOCIATED
    return None
