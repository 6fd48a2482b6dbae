"""Archives in memory -> their files. Nothing is ever written to a path, and nothing in a file is unpacked again."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sam2_amg.errors import RequestError

TYPES = ("application/x-tar", "application/tar", "application/zip", "application/x-zip-compressed")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_ENTRY = b"PK\x01\x02"  # at the begin of each entry of a zip's directory
_TAR, _TAR_AT = b"ustar", 257
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take up to gigabytes to unpack
_UNPACKED = 4  # times the size of the largest body
_FOLDERS = 10  # entries, of which some may be folders, for each file
_LONGEST_NAME = 1000  # characters
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSIONS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # headers about other files
LARGEST_EXTENSION = 1 << 20  # bytes; attributes of a file may take many
_MOST_EXTENSIONS = 4  # for a file
_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


@dataclass(frozen=True)
class Entry:
    """A file of an archive, or of a form. `read` raises RequestError; it may be called in any thread."""

    name: str
    read: Callable[[], bytes]


def is_archive(data: bytes) -> bool:
    """Whether this is a zip or a tar."""
    return data.startswith(_ZIP) or data[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR


def entries_of(data: bytes, most: int, largest: int) -> list[Entry]:
    """The files of an archive, without folders and links, in order. Reading is left to each entry.

    `largest` is the most bytes that a file may have; all files together may have four times as many. Raises
    RequestError malformed_archive (400), too_many_images (413) for more than `most` files, and body_too_large (413).
    """
    try:
        return _of_zip(data, most, largest) if data.startswith(_ZIP) else _of_tar(data, most, largest)
    except RequestError:
        raise
    except Exception as error:  # these readers raise many kinds, RecursionError among them
        raise _malformed(str(error)) from error


def too_many(most: int) -> RequestError:
    """413: a batch of too many images."""
    message = f"The request has more than {most} images (--max_batch_images). Send several requests."
    return RequestError(413, "too_many_images", message)


def _malformed(why: str) -> RequestError:
    message = f"The archive cannot be read ({why}). Send a zip, or a tar that is not compressed."
    return RequestError(400, "malformed_archive", message)


def _too_large(what: str, most: int) -> RequestError:
    return RequestError(413, "body_too_large", f"{what} over the limit of {most >> 20} MiB (--max_body_mib).")


def _check_sizes(sizes: list[int], most: int, largest: int) -> None:
    if len(sizes) > most:
        raise too_many(most)
    if sum(sizes) > _UNPACKED * largest:
        raise _too_large("All files of the archive together are", _UNPACKED * largest)


def _of_zip(data: bytes, most: int, largest: int) -> list[Entry]:
    if data.count(_ZIP_ENTRY) > _FOLDERS * most:  # before a directory of millions of entries is read
        raise too_many(most)
    archive = zipfile.ZipFile(io.BytesIO(data))
    files = [info for info in archive.infolist() if not info.is_dir()]
    _check_sizes([info.file_size for info in files], most, largest)

    def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
        return lambda: _read_zipped(archive, info, largest)

    return [Entry(as_text(info.filename), reader(info)) for info in files]


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, largest: int) -> bytes:
    if info.file_size > largest:
        raise _too_large("The file is", largest)
    if info.compress_type not in _METHODS or info.flag_bits & 1:
        raise _malformed("the file is encrypted, or neither stored nor deflated")
    try:
        with archive.open(info) as file:
            return file.read(largest)  # no more than `file_size`, whatever unpacks
    except Exception as error:
        raise _malformed(str(error)) from error


@dataclass(frozen=True)
class _Tarred:
    """A regular file of a tar: its bytes begin at `start`."""

    name: str
    start: int
    size: int
    is_sparse: bool


def _of_tar(data: bytes, most: int, largest: int) -> list[Entry]:
    files = list(_files_of_tar(data, most))
    _check_sizes([file.size for file in files], most, largest)

    def reader(file: _Tarred) -> Callable[[], bytes]:
        return lambda: _read_tarred(data, file, largest)

    return [Entry(as_text(file.name), reader(file)) for file in files]


def _files_of_tar(data: bytes, most: int) -> Iterator[_Tarred]:
    """tarfile reads the headers, but not the extended ones: its time and memory for them grow with their square."""
    at, count, extensions = 0, 0, 0
    known: dict[str, str] = {}  # what extended headers say of the next file
    while (block := data[at : at + tarfile.BLOCKSIZE]) != bytes(tarfile.BLOCKSIZE):
        if len(block) < tarfile.BLOCKSIZE:
            raise ValueError("it is cut off")
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        start = at + tarfile.BLOCKSIZE
        if header.type in EXTENSIONS:
            extensions += 1
            if not 0 <= header.size <= LARGEST_EXTENSION or extensions > _MOST_EXTENSIONS:
                raise ValueError("a file has too long a header")
            size = header.size
            known |= _extension(header.type, data[start : start + size])
        else:
            count += 1
            if count > _FOLDERS * most:
                raise too_many(most)
            size = 0 if header.type in _NO_DATA else int(known.get("size", header.size))
            is_sparse = header.type == tarfile.GNUTYPE_SPARSE
            more = is_sparse and block[482]
            while more:  # blocks that say where the holes are
                more, start = data[start + 504], start + tarfile.BLOCKSIZE
            if header.isreg():
                is_sparse |= any(key.startswith("GNU.sparse.") for key in known)
                name = known.get("GNU.sparse.name", known.get("path", header.name))
                yield _Tarred(name, start, size, is_sparse)
            known, extensions = {}, 0
        if size < 0:
            raise ValueError("a file has fewer than no bytes")
        at = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extended header says of the next file."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.partition(b"\0")[0])}
    return _records(data) if kind in _PAX else {}


def _records(data: bytes) -> dict[str, str]:
    """What an extended header of pax says: records of "<length of the record> <key>=<value>\\n"."""
    found: dict[str, str] = {}
    at = 0
    while data[at : at + 1] not in (b"", b"\0"):
        length, space, _ = data[at : at + 8].partition(b" ")
        record = data[at + len(length) + 1 : at + int(length)]
        key, equals, value = record.partition(b"=")
        if not (space and equals and value.endswith(b"\n")):
            raise ValueError("a header of it is broken")
        found[_text(key)] = _text(value[:-1])
        at += int(length)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _read_tarred(data: bytes, file: _Tarred, largest: int) -> bytes:
    if file.is_sparse:
        raise _malformed("the file is sparse")
    if file.size > largest:
        raise _too_large("The file is", largest)
    found = data[file.start : file.start + file.size]
    if len(found) < file.size:
        raise _malformed("it ends within the file")
    return found


def as_text(name: str) -> str:
    """A name that fits into JSON."""
    return name[:_LONGEST_NAME].encode("utf-8", "replace").decode()
