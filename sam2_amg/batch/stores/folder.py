"""Outputs in a folder. A file appears under its name when it is whole and on the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sam2_amg.batch.stores.local_file import drop, fault, reader, writer
from sam2_amg.batch.stores.names import checked

_TEMPORARY = re.compile(r"\..*\.(?P<host>[^.]*)\.\d+-[0-9a-f]{16}\.tmp", re.DOTALL)
_LOCK = ".create.lock"
_YOUNG, _OLD = 60.0, 86400.0  # seconds since the last write
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}  # of folders, on some network file systems


class FolderStore:
    """A store in a folder, which is made if it is not there.

    A file is written under a temporary name (.NAME.HOST.PID-RANDOM.tmp, at the top level), flushed to the disk, and
    renamed. So the folder must be one file system. The writer locks its temporary file; the kernel takes the lock away
    when the process ends, however it ends. At opening, temporary files of this host that nobody locks are removed, and
    those of any host that were last written a day ago.
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreError if the folder cannot be made or read."""
        self.address = str(path)
        self._folder = path
        self._host = _host()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._remove_left_over()
        except FileExistsError as error:
            raise fault(self.address, OSError(errno.ENOTDIR, "")) from error
        except OSError as error:
            raise fault(self.address, error) from error

    def names(self) -> set[str]:
        """The files at the top level, without temporary ones."""
        try:
            with os.scandir(self._folder) as entries:
                return {entry.name for entry in entries if _is_whole(entry.name) and entry.is_file()}
        except OSError as error:
            raise fault(self.address, error) from error

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        """A file, to be read from its beginning."""
        path = self._path(name)
        with reader(str(path), str(path)) as file:
            yield file

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """A new file, which is on the disk, whole, when the block ends. Nothing is left of it if the block raises."""
        path = self._path(name)
        with self._temporary(path) as (file, temporary):
            yield file
            _finish(file, path)
            with _faults_of(path):
                self._make_parents(path)
                os.replace(temporary, path)
                _sync(path.parent)

    def create(self, name: str, fill: Callable[[BinaryIO], None]) -> bool:
        """A new file, whole, unless there is one of that name; whether it was made.

        The complete temporary file gets its name by a hard link, which one process alone can make. File systems without
        hard links (FAT, some of networks) have a lock instead: who holds .create.lock looks, and renames.
        """
        path = self._path(name)
        with self._temporary(path) as (file, temporary):
            fill(file)
            _finish(file, path)
            with _faults_of(path):
                self._make_parents(path)
                made = _link(temporary, path, self._folder / _LOCK)
                _sync(path.parent)
        return made

    def _path(self, name: str) -> Path:
        return self._folder / checked(name, self.address)

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A locked temporary file, which is removed at the end unless it was renamed."""
        unique = f"{os.getpid()}-{secrets.token_hex(8)}"
        temporary = self._folder / f".{path.name[:32]}.{self._host}.{unique}.tmp"
        with _faults_of(path):
            file = writer(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), str(path))
        try:
            with contextlib.suppress(OSError):  # no locks there: it is removed when it is old
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file, temporary
        finally:
            drop(file)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _make_parents(self, path: Path) -> None:
        """Makes the folders above a file, on the disk as well."""
        missing = [folder for folder in path.parents if folder != self._folder and folder.is_relative_to(self._folder)]
        for folder in reversed(missing):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                _sync(folder.parent)

    def _remove_left_over(self) -> None:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                found = _TEMPORARY.fullmatch(entry.name)
                if found and _is_left_over(Path(entry.path), found["host"] == self._host):
                    with contextlib.suppress(OSError):  # another process removes it, or may alone
                        os.unlink(entry.path)


def _host() -> str:
    return socket.gethostname().replace(".", "-").replace("/", "-")[:64] or "unknown"


def _is_whole(name: str) -> bool:
    return name != _LOCK and not _TEMPORARY.fullmatch(name)


def _is_left_over(path: Path, is_ours: bool) -> bool:
    """Whether the process that wrote a temporary file has ended."""
    try:
        age = time.time() - path.stat().st_mtime
        if age > _OLD:
            return True
        if not is_ours or age < _YOUNG:  # it may have been made, and not locked yet
            return False
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is locked, it is renamed by now, or locks do not work there
        return False
    return True


def _finish(file: BinaryIO, path: Path) -> None:
    """Brings all of a file to the disk."""
    file.flush()
    with _faults_of(path):
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Brings a folder's names to the disk, so that they outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _link(temporary: Path, path: Path, lock: Path) -> bool:
    """Gives a whole file its name, if nothing has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_under_lock(temporary, path, lock)
    return True


def _rename_under_lock(temporary: Path, path: Path, lock: Path) -> bool:
    """The same, where links do not work. The kernel takes the lock away from a process that ends."""
    with lock.open("wb") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if os.path.lexists(path):
            return False
        os.replace(temporary, path)
        return True


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise fault(str(path), error) from error
