"""The inputs of a shard -> images as bytes, in order, read ahead by threads."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import groupby, islice, repeat
from typing import BinaryIO, TypeVar, cast

from sam2_amg.batch.inputs.addresses import is_address, one_line, open_filesystem
from sam2_amg.batch.inputs.folders import as_bytes
from sam2_amg.batch.inputs.listing import Entry
from sam2_amg.batch.inputs.names import is_image, prefix_of_members
from sam2_amg.batch.items import InputError, Item, Problem
from sam2_amg.server.archives import EXTENSIONS, LARGEST_EXTENSION

T = TypeVar("T")
# What a file itself is to blame for; all else may pass: a disk or a network that is not there, too many open files.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_LASTING_NUMBERS: set[int | None] = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_LASTING_NUMBERS |= {errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV, None}  # None: it is no regular file
_OF_ACCOUNTS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "ExpiredToken", "NoSuchBucket"}
_REGULAR = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # which does not wait for the other end of a pipe


def read_entries(entries: Iterable[Entry], ahead: int, largest: int) -> Generator[Item]:
    """The images of files and tars in their order. At most `ahead` + 1 of them are in memory, or being read.

    What cannot be read is an Item with a Problem: `unreadable`; `too_large` for more than `largest` bytes, which are
    not read; `broken_tar`, under the tar's name and after its images. Threads end when the iterator does or is closed.
    Raises InputError for what may be read later.
    """
    for kind, group in groupby(entries, key=lambda entry: entry.kind):
        if kind == "file":
            yield from _ahead((partial(_read_file, entry, largest) for entry in group), ahead, threads=ahead)
            continue
        for entry in group:
            yield from _read_tar_ahead(entry, ahead, largest)


def _read_tar_ahead(entry: Entry, ahead: int, largest: int) -> Iterator[Item]:
    with closing(_read_tar(entry, largest)) as members:
        steps: Iterator[Callable[[], Item | None]] = repeat(partial(next, members, None))
        with closing(_ahead(steps, ahead, threads=1)) as items:
            for item in items:
                if item is None:
                    return
                yield item


def _ahead(calls: Iterator[Callable[[], T]], ahead: int, threads: int) -> Generator[T]:
    """What calls return, in their order; the next `ahead` are called by threads meanwhile."""
    pool = ThreadPoolExecutor(threads, "read")
    try:
        pending = deque(pool.submit(call) for call in islice(calls, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(call) for call in islice(calls, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _read_file(entry: Entry, largest: int) -> Item:
    try:
        data = _read_address(entry.at, largest) if is_address(entry.at) else _read_path(entry.at, largest)
    except MemoryError:
        raise
    except Exception as error:  # each file system has its own kinds
        return Item(entry.name, _unreadable(entry, error))
    return Item(entry.name, data if data is not None and len(data) <= largest else _too_large(largest))


def _unreadable(entry: Entry, error: Exception) -> Problem:
    """Why a file has no bytes. Raises InputError if it may have some later."""
    if isinstance(error, FileNotFoundError) and (folder := _lost_folder(entry)):
        message = f"{entry.at} is missing, because {folder} is missing or empty"
        way_out = "start the job again when it is there, in the folder where it began; or give it an empty file"
        raise InputError(f"{message}; {way_out}, and what is missing gets an error") from error
    if _may_pass(entry.at, error):
        message = f"{entry.at} cannot be read ({one_line(error)}); start the job again when it can, and it goes on"
        raise InputError(message) from error
    return Problem("unreadable", f"The file cannot be read ({one_line(error)}).")


def _lost_folder(entry: Entry) -> str | None:
    """The folder that a file was found in, if it is gone, or has nothing in it: a disk is not mounted, or this is
    another working directory."""
    if is_address(entry.at):
        return None
    if top := entry.at.removesuffix(entry.name):
        return top if _is_bare(top) else None
    above = os.path.dirname(entry.at)  # of a list, whose names are paths
    while above and not os.path.lexists(as_bytes(above)):
        above = os.path.dirname(above)
    if above:
        return above if _is_bare(above) else None
    first, slash, _ = entry.at.partition("/")  # of a relative path whose first folder is not there
    return first + slash if slash else None


def _is_bare(folder: str) -> bool:
    """Whether a folder is missing, or empty."""
    try:
        with os.scandir(as_bytes(folder)) as found:
            return next(found, None) is None
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def _may_pass(at: str, error: Exception) -> bool:
    """Whether reading may succeed later: the disk or the network is down, this process has too little of something, or
    a bucket does not take the account's keys."""
    if not is_address(at):
        return isinstance(error, OSError) and error.errno not in _LASTING_NUMBERS
    if any(_code(each) in _OF_ACCOUNTS for each in _chain(error)):
        return True
    status = getattr(error, "status", None)  # of HTTP
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return False
    said = [error, *(each for each in _chain(error) if isinstance(each, OSError))]
    return not all(isinstance(each, _LASTING) for each in said)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of: fsspec takes many of the system and the network for a missing file."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str | None:
    """The code of S3's answer that an error is about."""
    answer = getattr(error, "response", None)
    return answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None


def _too_large(largest: int) -> Problem:
    return Problem("too_large", f"The file has more than {largest} bytes (--max_body_mib).")


@contextmanager
def _open(at: str) -> Iterator[BinaryIO]:
    """A file of this machine or at an address, from its beginning."""
    if is_address(at):
        filesystem, path = open_filesystem(at)
        with filesystem.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
        return
    with open(as_bytes(at), "rb", opener=lambda path, _: os.open(path, _REGULAR)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is no regular file")
        yield file


def _read_path(path: str, largest: int) -> bytes | None:
    """A file's bytes; None or `largest` + 1 bytes of a larger one."""
    with _open(path) as file:
        return None if os.fstat(file.fileno()).st_size > largest else file.read(largest + 1)


def _read_address(at: str, largest: int) -> bytes:
    """The same, by one request if the file is not empty."""
    filesystem, path = open_filesystem(at)
    try:
        return bytes(filesystem.cat_file(path, start=0, end=largest + 1))
    except Exception:  # there is no first byte in an empty file: S3 and HTTP answer 416
        with suppress(Exception):  # what the first answer says counts: this one has no body
            if filesystem.info(path).get("size") == 0:
                return b""
        raise


class _Header(tarfile.TarInfo):
    """A header that is no end of the tar if it is damaged or cut off, as it is to tarfile from the second header on."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """The header in 512 bytes. Raises ReadError if it is none, or one of a name of megabytes, and HeaderError at
        the tar's end."""
        try:
            header = super().frombuf(buf, encoding, errors)
            if header.type in EXTENSIONS and header.size > LARGEST_EXTENSION:  # which tarfile would hold
                raise tarfile.ReadError(f"an extended header has {header.size} bytes")
            return header
        except tarfile.HeaderError as error:
            if buf == bytes(tarfile.BLOCKSIZE):  # the end
                raise
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Reads what belongs to a header. Raises ReadError if that is damaged; tarfile takes it for the tar's end."""
        try:
            return super()._proc_member(archive)  # type: ignore[misc]
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _ReadFailed(Exception):
    """A tar's file cannot be read any further; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class _Reader:
    """A tar's file. Its errors are told from those that tarfile has with what it reads: both raise all kinds."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """The next bytes. Raises _ReadFailed."""
        try:
            return self._stream.read(size)
        except MemoryError:
            raise
        except Exception as error:  # each file system has its own kinds
            raise _ReadFailed(error) from error


def _read_tar(entry: Entry, largest: int) -> Generator[Item]:
    """The images of a tar, one after another, as they come; then what is wrong with it."""
    try:
        with _open(entry.at) as stream:
            yield from _members(entry, _Reader(stream), largest)
    except MemoryError:
        raise
    except _ReadFailed as failed:
        yield Item(entry.name, _unreadable(entry, failed.error))
    except Exception as error:  # of opening it
        yield Item(entry.name, _unreadable(entry, _reason(entry.at, error)))


def _reason(at: str, error: Exception) -> Exception:
    """Why a file cannot be opened. At an address that begins with a question whose answer has no body: asks again."""
    if is_address(at):
        filesystem, path = open_filesystem(at)
        try:
            filesystem.cat_file(path, start=0, end=1)
        except Exception as found:  # each file system has its own kinds
            return found
    return error


def _members(entry: Entry, stream: _Reader, largest: int) -> Generator[Item]:
    before = prefix_of_members(entry.name)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|*", encoding="utf-8", tarinfo=_Header) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # which would grow
                if member.isreg() and is_image(member.name):
                    yield Item(before + member.name, _read_member(archive, member, largest))
    except (MemoryError, _ReadFailed):
        raise
    except Exception as error:  # tarfile and what unpacks for it raise many kinds for a damaged file
        message = f"The tar is broken, and what follows in it is not read ({one_line(error)})."
        yield Item(entry.name, Problem("broken_tar", message))


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytes | Problem:
    if member.size > largest:
        return _too_large(largest)
    file = archive.extractfile(member)
    return file.read() if file is not None else b""
