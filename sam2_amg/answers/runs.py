"""Runs of pixels, column by column, and the run-length encodings that they become.

A mask's runs are two arrays: where each run starts, and where it ends (exclusive). A position is column * height + row.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_amg.answers.options import AnswerError, Counts, Segmented
from sam2_amg.process.wanted import while_wanted

if TYPE_CHECKING:
    from sam2_amg.pipeline.base import MaskRecord
    from sam2_amg.postprocess.rle import UncompressedRle

MOST_LABELS = 65535  # what 16 bits hold, without the background's 0


class Runs(NamedTuple):
    """The runs of a mask, in order: int64 [n] each. No run is empty, and no two touch."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Box(NamedTuple):
    """A rectangle of pixels; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def sam2(self) -> list[float]:
        """[x, y, width, height], as sam2 has it: from the first pixel to the last, so that one pixel has width 0."""
        return [float(self.x0), float(self.y0), float(self.x1 - self.x0 - 1), float(self.y1 - self.y0 - 1)]


def runs_of(rle: UncompressedRle) -> Runs:
    """The runs of a mask in COCO's uncompressed RLE. `counts` may be a list or an array."""
    bounds = np.cumsum(np.asarray(rle["counts"], dtype=np.int64))
    ends = bounds[1::2]
    return Runs(bounds[0::2][: len(ends)], ends)


def split_by_column(runs: Runs, height: int) -> Runs:
    """The same pixels in runs that end with their column. Those of neighbouring columns may touch."""
    first, last = runs.starts // height, (runs.ends - 1) // height
    lengths = last - first + 1
    column = np.repeat(first, lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    starts = np.maximum(np.repeat(runs.starts, lengths), column * height)
    return Runs(starts, np.minimum(np.repeat(runs.ends, lengths), (column + 1) * height))


def uncompressed(runs: Runs, size: tuple[int, int]) -> UncompressedRle:
    """COCO's uncompressed RLE of runs in an image of `size` (height, width)."""
    pixels = size[0] * size[1]
    bounds = np.stack(runs, axis=1).ravel()
    counts = np.diff(bounds, prepend=0, append=pixels)
    if len(bounds) and bounds[-1] == pixels:
        counts = counts[:-1]  # the last run is the mask's
    return {"size": list(size), "counts": counts.tolist()}


def compressed(records: Sequence[MaskRecord], size: tuple[int, int]) -> list[dict[str, Any]]:
    """COCO's compressed RLE of each mask: {"size": [h, w], "counts": bytes}, what pycocotools computes with.

    Records whose counts are text, as `as_text` makes them, are compressed already.
    """
    rles: list[Any] = [record["segmentation"] for record in records]
    if not rles:
        return []
    if isinstance(rles[0]["counts"], str):
        return [{"size": rle["size"], "counts": rle["counts"].encode()} for rle in rles]
    return coco_mask.frPyObjects(rles, *size)


def with_counts(image: Segmented, default: Counts) -> list[Any]:
    """The records for JSON, with run lengths as the options say, else as `default`."""
    records = image.records
    if (image.options.counts or default) == "uncompressed":
        return records
    rles = compressed(records, image.size)
    return [{**record, "segmentation": as_text(rle)} for record, rle in zip(records, rles, strict=True)]


def as_text(rle: dict[str, Any]) -> dict[str, Any]:
    """Compressed RLE for JSON, which has no bytes: counts are a string."""
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def box_of(runs: Runs, height: int) -> Box:
    """The smallest box around a mask of an image of this height. It is empty for an empty mask."""
    if not len(runs.starts):
        return Box(0, 0, 0, 0)
    last = runs.ends - 1
    first_columns, last_columns = runs.starts // height, last // height
    x0, x1 = int(first_columns[0]), int(last_columns[-1]) + 1
    if (
        first_columns != last_columns
    ).any():  # a run that goes on in the next column has the bottom row and the top one
        return Box(x0, 0, x1, height)
    return Box(x0, int((runs.starts % height).min()), x1, int((last % height).max()) + 1)


def crop_of(runs: Runs, height: int) -> tuple[Box, NDArray[np.bool_]]:
    """The box of a mask, and the mask in it, bool [columns, rows]: column-major, as the runs are."""
    box = box_of(runs, height)
    offset, columns = box.x0 * height, box.x1 - box.x0
    bounds = np.stack(runs, axis=1).ravel() - offset
    lengths = np.diff(bounds, prepend=0, append=columns * height)
    of_mask = np.zeros(len(lengths), bool)
    of_mask[1::2] = True
    return box, np.repeat(of_mask, lengths).reshape(columns, height)[:, box.y0 : box.y1]


def painting_order(records: Sequence[MaskRecord]) -> list[int]:
    """The indices of records as they are painted: the smaller lies on the larger, and of equal ones the later."""
    return sorted(range(len(records)), key=lambda i: -records[i]["area"])


def require_labels(records: Sequence[MaskRecord]) -> None:
    """Raises AnswerError for more masks than a label map tells apart."""
    if len(records) > MOST_LABELS:
        message = (
            f"{len(records)} masks are more than the {MOST_LABELS} that 16 bits tell apart; ask for fewer (max_masks)"
        )
        raise AnswerError(message)


def label_map(records: Sequence[MaskRecord], size: tuple[int, int]) -> NDArray[Any]:
    """Which mask lies on top, [columns, rows]: 0 for none, else the index of its record plus 1.

    uint16, or uint32 for more than 65535 masks.
    """
    height, width = size
    labels: NDArray[Any] = np.zeros(height * width, np.uint16 if len(records) <= MOST_LABELS else np.uint32)
    for index in while_wanted(painting_order(records)):
        starts, ends = runs_of(records[index]["segmentation"])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            labels[start:end] = index + 1
    return labels.reshape(width, height)


def runs_by_label(labels: NDArray[Any], count: int, split: bool = False) -> list[Runs]:
    """The runs of the labels 1 to `count` of a label map [columns, rows]. `split` ends each run at its column's end."""
    flat = labels.ravel()
    changed = np.empty(len(flat), bool)
    changed[:1] = True
    np.not_equal(flat[1:], flat[:-1], out=changed[1:])
    if split:
        changed[:: labels.shape[1]] = True
    starts = np.flatnonzero(changed)
    ends = np.append(starts[1:], len(flat))
    of_runs = flat[starts]
    order = np.argsort(of_runs, kind="stable")
    bounds = np.searchsorted(of_runs, np.arange(1, count + 2), sorter=order)
    starts, ends = starts[order], ends[order]
    return [Runs(starts[a:b], ends[a:b]) for a, b in itertools.pairwise(bounds)]
