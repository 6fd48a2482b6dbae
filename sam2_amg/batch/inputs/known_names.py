"""Which names there are, by 128 bits of hash each: ten million names take 160 MB."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np
from numpy.typing import NDArray

from sam2_amg.batch.inputs.folders import as_bytes
from sam2_amg.batch.inputs.listing import Entry
from sam2_amg.batch.inputs.names import prefix_of_members

_BLOCK = 1 << 20  # names that are looked for at once


class NameHashes:
    """Hashes of names in the order in which they were added."""

    def __init__(self) -> None:
        self._high, self._low = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._high)

    def add(self, entry: Entry) -> None:
        """The next name."""
        digest = hashlib.blake2b(key_of(entry), digest_size=16).digest()
        self._high.append(int.from_bytes(digest[:8]))
        self._low.append(int.from_bytes(digest[8:]))

    def doubtful(self, most: int) -> NDArray[np.int64]:
        """Places of names whose first 64 bits come more than once, in order, of at most `most` such hashes."""
        high = np.frombuffer(self._high, np.uint64)
        ordered = np.sort(high)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])[:most]
        return np.flatnonzero(np.isin(high, twice)) if len(twice) else np.empty(0, np.int64)

    def missing_in(self, others: NameHashes) -> NDArray[np.bool_]:
        """For each name whether it is none of the others, of which there is at least one."""
        high, low = (np.frombuffer(part, np.uint64) for part in (others._high, others._low))
        order = np.argsort(high)
        missing = np.empty(len(self), np.bool_)
        for start in range(0, len(self), _BLOCK):
            wanted = slice(start, start + _BLOCK)
            own = np.frombuffer(self._high, np.uint64)[wanted]
            at = order[np.minimum(np.searchsorted(high, own, sorter=order), len(high) - 1)]
            missing[wanted] = (high[at] != own) | (low[at] != np.frombuffer(self._low, np.uint64)[wanted])
        return missing


def key_of(entry: Entry) -> bytes:
    """What no two inputs may share: a file's name, and what the names of a tar's members begin with."""
    return as_bytes(entry.name if entry.kind == "file" else prefix_of_members(entry.name))
