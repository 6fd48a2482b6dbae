"""Inputs at addresses that fsspec knows: s3://bucket/photos, https://host/photo.jpg and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sam2_amg.errors import StartupError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]*://")
_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"}  # whose keys may have "::", which makes a chain elsewhere
_PACKAGES = {"s3": '"sam2-amg-server[buckets]"', "s3a": '"sam2-amg-server[buckets]"', "gs": "gcsfs", "gcs": "gcsfs"}
_PACKAGES |= {"http": "aiohttp", "https": "aiohttp", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
_PAGE = 1000  # the most that S3 gives at once


def is_address(at: str) -> bool:
    """Whether this is an address and not a path of this machine."""
    return _ADDRESS.match(at) is not None


def one_line(error: BaseException) -> str:
    """What an error says, in one line of Unicode without lone surrogates."""
    said = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(said.split()).encode("utf-8", "backslashreplace").decode()


def open_filesystem(at: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it. Raises StartupError if there is none."""
    from fsspec.core import url_to_fs

    protocol = re.split("::|://", at, maxsplit=1)[0]
    try:
        filesystem, path = _literal(at, protocol) if protocol in _STORES and "::" in at else url_to_fs(at)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        way_out = f"pip install {package}" if package else one_line(error)
        raise StartupError(f"{at} needs a package that is not installed; {way_out}") from error
    except Exception as error:  # each file system has its own kinds
        raise StartupError(f"{at} cannot be opened ({one_line(error)}); give an address that fsspec knows") from error
    return filesystem, path


def _literal(at: str, protocol: str) -> tuple[Any, str]:
    """The same for an address whose path has `::` in it, where fsspec would see a chain of file systems."""
    from fsspec import filesystem, get_filesystem_class

    kind = get_filesystem_class(protocol)
    return filesystem(protocol, **kind._get_kwargs_from_urls(at)), kind._strip_protocol(at)


def is_folder(at: str) -> bool:
    """Whether an address is one of a folder, or of a file. Raises StartupError if nothing is there."""
    filesystem, path = open_filesystem(at)
    if at.startswith("http") and at.endswith("/"):
        return True
    try:
        return bool(filesystem.info(path)["type"] == "directory")
    except FileNotFoundError as error:
        raise StartupError(f"{at} does not exist; give an image, a folder, a tar or @LIST") from error
    except Exception as error:  # each file system has its own kinds
        raise StartupError(f"{at} cannot be looked at ({one_line(error)}); check the address and its keys") from error


def walk_address(at: str) -> Iterator[str]:
    """The paths of all files under a folder at an address that ends with a slash, sorted. Raises StartupError.

    S3 is listed page by page. Other file systems hold the whole list in memory.
    """
    filesystem, path = open_filesystem(at)
    try:
        if "s3" in filesystem.protocol:
            yield from _walk_s3(filesystem, path)
            return
        top = path.rstrip("/") + "/"
        yield from (name.removeprefix(top) for name in filesystem.find(path))
    except Exception as error:  # each file system has its own kinds
        raise StartupError(f"{at} cannot be listed ({one_line(error)}); check the address and its keys") from error


def _walk_s3(filesystem: Any, path: str) -> Iterator[str]:
    """`find` of s3fs takes more than a kilobyte a file."""
    bucket, _, key = path.partition("/")
    prefix = key.rstrip("/") + "/" if key else ""
    more: dict[str, str] = {}
    about = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": _PAGE, **filesystem.req_kw}
    while True:
        page = filesystem.call_s3("list_objects_v2", **about, **more)
        yield from (found["Key"].removeprefix(prefix) for found in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}
