"""COCO's compressed run lengths, as text -> numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord

_FIRST_LETTER = 48  # stands for 0
_DIGIT, _SIGN, _MORE = 0x1F, 0x10, 0x20
_BITS = 5


def run_lengths(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """The run lengths of each text, as COCO's uncompressed RLE has them: int64 [n] each.

    A letter holds five bits of a number, the lowest first, and whether another letter follows. From the fourth on, a
    number is the difference to the run length two before it.
    """
    letters = np.frombuffer("".join(texts).encode(), np.uint8).astype(np.int64) - _FIRST_LETTER
    if not len(letters):
        return [letters] * len(texts)
    ends = np.flatnonzero(letters & _MORE == 0) + 1
    starts = np.append(0, ends[:-1])
    shifts = _BITS * (np.arange(len(letters)) - np.repeat(starts, ends - starts))
    numbers = np.add.reduceat((letters & _DIGIT) << shifts, starts)
    negative = letters[ends - 1] & _SIGN != 0
    numbers -= np.where(negative, np.int64(1) << _BITS * (ends - starts), 0)
    bounds = np.searchsorted(ends, np.cumsum([len(text) for text in texts]), side="right")
    return [_summed(part) for part in np.split(numbers, bounds[:-1])]


def _summed(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths = numbers.copy()
    lengths[1::2] = np.cumsum(numbers[1::2])
    lengths[2::2] = np.cumsum(numbers[2::2])
    return lengths


def with_run_lengths(records: Sequence[MaskRecord]) -> list[MaskRecord]:
    """The records, with uncompressed RLE (counts are an array) in place of text, for the functions of `answers`."""
    segmentations: list[Any] = [record["segmentation"] for record in records]
    lengths = run_lengths([rle["counts"] for rle in segmentations])
    rles: list[Any] = [{**rle, "counts": counts} for rle, counts in zip(segmentations, lengths, strict=True)]
    return [{**record, "segmentation": rle} for record, rle in zip(records, rles, strict=True)]
