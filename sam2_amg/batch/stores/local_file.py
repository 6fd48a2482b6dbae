"""Local files whose faults are StoreErrors that name the place, the fault and the way out."""

from __future__ import annotations

import errno
import io
from typing import Any, BinaryIO, cast

from sam2_amg.batch.stores.base import StoreError

_AGAIN = "then start the same command again: it goes on where it stopped"
_WAYS_OUT = {
    errno.ENOSPC: f"the disk is full; make room, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up; make room, {_AGAIN}",
    errno.EFBIG: f"the file is over the limit of file sizes (ulimit -f, or the file system's); raise it, {_AGAIN}",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder, or another user",
    errno.EPERM: "permission denied; choose another folder, or another user",
    errno.ENOTDIR: "a part of the path is a file, and no folder; choose another folder",
    errno.EISDIR: "it is a folder, and no file; move it away",
    errno.EMFILE: f"too many open files; raise the limit (ulimit -n), {_AGAIN}",
    errno.EIO: f"the disk reports an error; look after it, {_AGAIN}",
}


def fault(place: str, error: OSError) -> StoreError:
    """What is wrong with a place, in one line."""
    reason = _WAYS_OUT.get(error.errno or 0) or f"{error.strerror or error}; mend it, {_AGAIN}"
    return StoreError(f"{place}: {reason}")


class _RawFile(io.FileIO):
    """A file whose faults are StoreErrors while it is read and written, too."""

    def __init__(self, file: int | str, mode: str, place: str) -> None:
        self._place = place
        super().__init__(file, mode)

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise fault(self._place, error) from error

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise fault(self._place, error) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise fault(self._place, error) from error


def writer(descriptor: int, place: str) -> BinaryIO:
    """A buffered file of a descriptor, which it owns. `place` is what errors name."""
    return cast(BinaryIO, io.BufferedWriter(_RawFile(descriptor, "wb", place), 1 << 20))


def reader(path: str, place: str) -> BinaryIO:
    """A buffered file, to be read. `place` is what errors name. Raises StoreError."""
    try:
        return cast(BinaryIO, io.BufferedReader(_RawFile(path, "rb", place), 1 << 16))
    except OSError as error:
        raise fault(place, error) from error


def drop(file: BinaryIO) -> None:
    """Closes a file of `writer` without writing what its buffer holds."""
    cast(io.BufferedWriter, file).raw.close()
