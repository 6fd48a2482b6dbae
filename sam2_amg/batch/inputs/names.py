"""What names say: whether a file is an image or a tar, how a tar's images are called, what a brace stands for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_HEIC = (".heic", ".heif")  # read with the extra `heic`, and refused with a message without it
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", *_HEIC)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_BRACE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_image(name: str) -> bool:
    """Whether a file found in a folder or a tar is taken for an image: by its suffix. Hidden files are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def is_tar(name: str) -> bool:
    """Whether a file is taken for a tar: by its suffix."""
    return name.lower().endswith(TAR_SUFFIXES)


def prefix_of_members(tar: str) -> str:
    """What stands before the names of a tar's members: its name without suffix, and a slash."""
    for suffix in TAR_SUFFIXES:
        if tar.lower().endswith(suffix):
            return tar[: -len(suffix)] + "/"
    return tar + "/"


def expand(text: str) -> Iterator[str]:
    """The inputs that `{first..last}` in an INPUT stands for, in order; several braces vary as digits do.

    Numbers are padded with zeros to the longer end's length, if one of the ends begins with a zero.
    """
    parts = _BRACE.split(text)  # text, first, last, text, first, last, text
    ranges = [_numbers(*ends) for ends in zip(parts[1::3], parts[2::3], strict=True)]
    for numbers in itertools.product(*ranges):
        yield parts[0] + "".join(number + rest for number, rest in zip(numbers, parts[3::3], strict=True))


def _numbers(first: str, last: str) -> list[str]:
    padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
