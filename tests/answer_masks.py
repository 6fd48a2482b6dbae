"""Masks for the tests of answers, and records of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from sam2_amg.pipeline.base import MaskRecord
from sam2_amg.process.wanted import ending_early

Mask = NDArray[np.bool_]


@contextmanager
def unwanted_after(checks: int) -> Iterator[None]:
    """The block is about an answer that somebody waits for until so many checks are made. It is to end with the next
    one."""
    made = 0

    def check() -> None:
        nonlocal made
        made += 1
        if made > checks:
            raise InterruptedError

    with pytest.raises(InterruptedError), ending_early(check):
        yield
    assert made == checks + 1


def record_of(mask: Mask, predicted_iou: float = 0.9) -> MaskRecord:
    """The record that sam2's generator makes of a mask, bool [h, w]."""
    height, width = mask.shape
    columns, rows = mask.T.nonzero()
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    x, y = (int(columns.min()), int(rows.min())) if len(rows) else (0, 0)
    box = [x, y, int(np.ptp(columns)), int(np.ptp(rows))] if len(rows) else [0, 0, 0, 0]
    return {
        "segmentation": {"size": [height, width], "counts": [0, *counts] if flat[0] else counts},
        "area": len(rows),
        "bbox": [float(value) for value in box],
        "predicted_iou": predicted_iou,
        "point_coords": [[float(columns[0]), float(rows[0])] if len(rows) else [0.0, 0.0]],
        "stability_score": 0.97,
        "crop_box": [0.0, 0.0, float(width), float(height)],
    }


def records_of(masks: Sequence[Mask]) -> list[MaskRecord]:
    """Records of falling predicted IoU."""
    return [record_of(mask, predicted_iou=1 - i / 1000) for i, mask in enumerate(masks)]


def drawn(*rows: str) -> Mask:
    """A mask of rows of text: # belongs to it."""
    return np.array([[letter == "#" for letter in row] for row in rows])


HARD = {
    "one pixel": drawn("#"),
    "one pixel of many": drawn("...", ".#.", "..."),
    "full": drawn("####", "####", "####"),
    "diagonal": drawn("#..", ".#.", "..#"),
    "other diagonal": drawn("..#", ".#.", "#.."),
    "a part that touches itself": drawn("####.", "#..#.", "##.#.", ".###."),
    "a hole that touches the outside": drawn("###.", "#.##", "##.#", ".###"),
    "holes that touch": drawn("#####", "#.#.#", "##.##", "#.#.#", "#####"),
    "holes in holes": drawn("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
    "holes side by side": drawn("#######", "#.#.#.#", "#.#...#", "#######", "#..#..#", "#######"),
    "at the border": drawn("#..#", "....", "#..#"),
    "last pixel": drawn("...", "..#"),
    "whole columns": drawn("##.", "##.", "##."),
    "a row": drawn("#.##.###"),
    "a column": drawn("#", ".", "#", "#"),
}


def random_masks(count: int, seed: int = 0) -> list[Mask]:
    """Masks of 1 to 20 pixels a side, from nearly empty to nearly full, some of them coarse."""
    rng = np.random.default_rng(seed)
    masks = []
    while len(masks) < count:
        mask = rng.random(rng.integers(1, 11, 2)) < rng.random()
        mask = np.kron(mask, np.ones(rng.integers(1, 3, 2), bool))
        if mask.any():
            masks.append(mask)
    return masks


def discs(count: int, size: tuple[int, int], seed: int = 0) -> list[Mask]:
    """Overlapping discs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = []
    for _ in range(count):
        row, column = rng.integers(0, size[0]), rng.integers(0, size[1])
        radius = rng.uniform(1, min(size) / 4)
        masks.append((y - row) ** 2 + (x - column) ** 2 <= radius**2)
    return masks
