"""A place for outputs: a folder here, or a bucket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from sam2_amg.errors import StartupError


class StoreError(StartupError):
    """The place cannot be read or written. The message is one line that names the place, and the way out."""


class Store(Protocol):
    """Files by name; names may have folders, with slashes. Every method raises StoreError."""

    address: str

    def names(self) -> set[str]:
        """The files at the top level that are whole, without those under temporary names."""
        ...

    def read(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file, to be read from its beginning."""
        ...

    def write(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A new file, which is there, whole, when the block ends, in place of any of that name. Nothing is left of it
        if the block raises."""
        ...

    def create(self, name: str, fill: Callable[[BinaryIO], None]) -> bool:
        """A new file, whole, unless there is one of that name; whether it was made. Of several processes that try at
        once, one succeeds."""
        ...
