"""Names of files in a store."""

from __future__ import annotations

from sam2_amg.batch.stores.base import StoreError


def checked(name: str, address: str) -> str:
    """The name, if it is one of a file within the store. Raises StoreError: names may come from foreign archives."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise StoreError(f"{name!r} is no name of a file within {address}; leave out '..', leading and double slashes")
    return name
