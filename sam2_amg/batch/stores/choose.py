"""From an address to a store."""

from __future__ import annotations

from pathlib import Path

from sam2_amg.batch.stores.base import Store
from sam2_amg.batch.stores.folder import FolderStore

_LOCAL = ("file://", "local://")


def open_store(address: str) -> Store:
    """The store of `s3://BUCKET/PREFIX` or another address of fsspec's, or of a folder, which is made. Raises
    StoreError."""
    for prefix in _LOCAL:
        if address.startswith(prefix):
            return FolderStore(Path(address.removeprefix(prefix)))
    if "://" not in address:
        return FolderStore(Path(address))
    from sam2_amg.batch.stores.bucket import BucketStore  # imports fsspec, which folders do not need

    return BucketStore(address)


def open_existing(address: str) -> Store | None:
    """The same, without making a folder: None if there is none."""
    is_there = "://" in address.removeprefix("file://") or Path(address.removeprefix("file://")).exists()
    return open_store(address) if is_there else None
