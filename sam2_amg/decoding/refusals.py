"""What is said about files that are not decoded."""

from __future__ import annotations

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError

_ACCEPTED = "JPEG, PNG, WebP, AVIF, HEIC, BMP, TIFF and GIF"


def not_an_image() -> RequestError:
    """415: no reader knows the file."""
    return RequestError(415, "not_an_image", f"The file is not an image of a format that is read: {_ACCEPTED}.")


def unsupported_pixels(what: str, instead: str = "8- or 16-bit grey or RGB") -> RequestError:
    """415: a file that is sound, of pixels that are not read, or have no defined colours."""
    message = f"The image holds {what}, which is not read; save it as {instead}."
    return RequestError(415, "unsupported_pixels", message)


def truncated(why: object) -> RequestError:
    """400: a reader knows the file, and fails on it."""
    reason = " ".join(str(why).split())  # codecs say several lines
    message = f"The image is truncated or damaged and cannot be read ({reason})."
    return RequestError(400, "truncated_image", message)


def too_complex(what: str) -> RequestError:
    """400: a file made of more parts than its pixels need, each of which takes a decoder's time."""
    message = f"The image file has {what}; no program needs that. Open the image and save it anew."
    return RequestError(400, "too_complex", message)


def too_many_pixels(subject: str, limits: Limits) -> RequestError:
    """413: a side, or the product of the two, is over a limit."""
    limit = f"{limits.max_pixels} pixels (--max_pixels) and {limits.max_side} pixels a side"
    return RequestError(413, "too_many_pixels", f"{subject} is over the limit of {limit}. Scale it down.")


def too_much_memory(needed: str, mib: int) -> RequestError:
    """413: an image that alone needs more bytes than all images may take."""
    message = (
        f"Decoding the image needs {needed}, over the limit of {mib} MiB for all images (--max_decoded_mib). "
        "Scale it down, or save it as JPEG."
    )
    return RequestError(413, "too_much_memory", message)
