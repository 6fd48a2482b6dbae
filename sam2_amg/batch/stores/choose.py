"""From an address to a store."""

from __future__ import annotations

from pathlib import Path

from sam2_amg.batch.stores.base import Store
from sam2_amg.batch.stores.folder import FolderStore

_LOCAL = ("file://", "local://")


def open_store(address: str) -> Store:
    """The store of `s3://BUCKET/PREFIX` or another address of fsspec's, or of a folder, which is made. Raises
    StoreError."""
    folder = _folder_of(address)
    if folder is not None:
        return FolderStore(folder)
    from sam2_amg.batch.stores.bucket import BucketStore  # imports fsspec, which folders do not need

    return BucketStore(address)


def open_existing(address: str) -> Store | None:
    """The same, without making a folder: None if there is none."""
    folder = _folder_of(address)
    return open_store(address) if folder is None or folder.exists() else None


def _folder_of(address: str) -> Path | None:
    """The folder that an address is of; None for a bucket's."""
    for prefix in _LOCAL:
        if address.startswith(prefix):
            return Path(address.removeprefix(prefix))
    return None if "://" in address else Path(address)
