"""Outputs in a bucket, by fsspec. A file is made on the local disk, and goes to the bucket in one upload."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import fsspec

from sam2_amg.batch.stores.base import StoreError
from sam2_amg.batch.stores.local_file import drop, fault, writer
from sam2_amg.batch.stores.names import checked

_EXISTS = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict"}  # another process writes at this moment
_ATTEMPTS = 5
_READ_BLOCK = 8 << 20  # bytes that are read ahead
_AGAIN = "When that is mended, start the same command again: it goes on where it stopped."


class BucketStore:
    """A store at an address of fsspec's: `s3://BUCKET/PREFIX`, `gs://...`, `az://...`, `memory://...`.

    An upload is one PUT, or beyond 100 MB one of several parts; either is visible at its end alone. A process that is
    killed between the parts leaves none to see, but they are stored until a lifecycle rule of the bucket
    (AbortIncompleteMultipartUpload) removes them. The temporary file needs as much room on the local disk (TMPDIR) as
    the shard that is written.
    """

    def __init__(self, address: str) -> None:
        """Raises StoreError if the bucket is not there, or may not be listed."""
        self._files, self._prefix = _file_system(address)
        self.address = address.rstrip("/")
        self.names()

    def names(self) -> set[str]:
        """The files right below the prefix, as the bucket lists them now."""
        with _faults_of(self.address):
            try:
                found = self._files.ls(self._prefix, detail=True, refresh=True)
            except FileNotFoundError as error:
                if _code_of(error) == "NoSuchBucket":
                    raise
                return set()
        beginning = f"{self._prefix.rstrip('/')}/"
        paths = [entry["name"] for entry in found if entry["type"] == "file"]
        return {path.removeprefix(beginning) for path in paths if path != beginning and path.startswith(beginning)}

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        """A file, to be read from its beginning."""
        path = self._path(name)
        with _faults_of(self._address_of(name)):
            remote = self._files.open(path, "rb", block_size=_READ_BLOCK)
        with remote, io.BufferedReader(_RawReader(remote, self._address_of(name))) as file:
            yield cast(BinaryIO, file)

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """A new file, which is uploaded when the block ends. Nothing is uploaded if the block raises."""
        path = self._path(name)
        with _spool() as (file, local):
            yield file
            file.flush()
            with _faults_of(self._address_of(name)):
                self._files.put_file(local, path)

    def create(self, name: str, fill: Callable[[BinaryIO], None]) -> bool:
        """A new file, whole, unless there is one of that name; whether it was made.

        S3 and what speaks like it (If-None-Match), Google's and Azure's storage refuse the second of two uploads.
        Other places of fsspec's are looked at first, which two processes can do at once.
        """
        path = self._path(name)
        with _spool() as (file, local):
            fill(file)
            file.flush()
            with _faults_of(self._address_of(name)):
                return self._put_new(local, path)

    def _put_new(self, local: str, path: str) -> bool:
        for attempt in range(_ATTEMPTS):
            try:
                self._files.put_file(local, path, mode="create")
                return True
            except FileExistsError:
                return False
            except Exception as error:  # each file system has its own kinds
                if _code_of(error) in _EXISTS:
                    return False
                if _code_of(error) not in _CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
        return False

    def _path(self, name: str) -> str:
        try:
            checked(name, self.address).encode()
        except UnicodeEncodeError as error:
            raise StoreError(f"{name!r} cannot be a name in {self.address}: it is no UTF-8; rename it") from error
        return f"{self._prefix.rstrip('/')}/{name}"

    def _address_of(self, name: str) -> str:
        return f"{self.address}/{name}"


class _RawReader(io.RawIOBase):
    """A remote file, whose faults are StoreErrors."""

    def __init__(self, remote: Any, address: str) -> None:
        self._remote, self._address = remote, address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._remote.seek(offset, whence))

    def tell(self) -> int:
        return int(self._remote.tell())

    def readinto(self, buffer: Any, /) -> int:
        with _faults_of(self._address):
            data = self._remote.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system, which asks anew for each listing, and the path in it."""
    try:
        files, path = fsspec.url_to_fs(address, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        package = "pip install '.[buckets]' brings s3://; other addresses need their own package, as gcsfs for gs://"
        raise StoreError(f"{address}: a package is missing ({_line(error)}): {package}") from error
    except Exception as error:
        way = "give s3://BUCKET/PREFIX, another address that fsspec knows, or a folder"
        raise StoreError(f"{address} is no address of a bucket ({_line(error)}); {way}") from error
    if not str(path).strip("/") and not address.startswith("memory:"):
        raise StoreError(f"{address} names no bucket; give one, as in s3://BUCKET/PREFIX")
    return files, str(path)


@contextmanager
def _spool() -> Iterator[tuple[BinaryIO, str]]:
    """A temporary file on the local disk, and its path."""
    folder = tempfile.gettempdir()
    place = f"{folder} (the temporary file of an upload; TMPDIR chooses another folder)"
    try:
        descriptor, path = tempfile.mkstemp(prefix="sam2-amg-upload-", dir=folder)
    except OSError as error:
        raise fault(place, error) from error
    try:
        file = writer(descriptor, place)
        try:
            yield file, path
        finally:
            drop(file)
    finally:
        os.unlink(path)


@contextmanager
def _faults_of(address: str) -> Iterator[None]:
    """Makes StoreErrors of whatever a file system raises: each has its own kinds, and they share no class."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"{address}: {_explain(error)}. {_AGAIN}") from error


def _explain(error: Exception) -> str:
    kind = type(error).__name__
    if _code_of(error) == "NoSuchBucket":
        return "there is no such bucket; make it, or check its name and region"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if "Credentials" in kind or "Token" in kind:
        return (
            f"no credentials ({_line(error)}); for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, PermissionError):
        return f"permission denied ({_line(error)}); check the credentials and the bucket's policy"
    return f"{_line(error) or kind}; check the address and the network (AWS_ENDPOINT_URL for a server of your own)"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")


def _code_of(error: BaseException) -> str:
    """The code of a storage's answer, as NoSuchBucket, by which the error was caused; or an HTTP status."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code", ""))
        if isinstance(getattr(each, "code", None), int | str):
            return str(getattr(each, "code", ""))
    return ""
