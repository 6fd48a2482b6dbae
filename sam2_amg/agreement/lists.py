"""Agreement of two lists of masks: files with one line per image, or folders of .json files."""

from __future__ import annotations

import gzip
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sam2_amg.agreement.masks import ImageAgreement, InvalidRle, compare_images, parse_masks, summarise

_CHUNK = 8  # images per task of a worker

# an image's place in a list, for error messages, and its answer; blank if it has none
Line = tuple[str, bytes]


class UnusableList(Exception):
    """The lists cannot be compared. The message names the file or the line."""


def read_list(path: Path) -> list[Line]:
    """The images of a file, which may be compressed, or the .json files of a folder in order of their names.

    Raises UnusableList if they cannot be read.
    """
    if path.is_dir():
        names = sorted(file.relative_to(path) for file in path.rglob("*.json") if file.is_file())
        if not names:
            raise UnusableList(f"{path} has no .json file")
        return [(str(name), (path / name).read_bytes()) for name in names]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return images_of(list(file))
    except (OSError, EOFError, zlib.error) as error:  # gzip raises the last two, and OSError without strerror
        raise UnusableList(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error


def images_of(lines: list[bytes]) -> list[Line]:
    """The images of a file's lines: one for each answer and one for each blank line.

    If a blank line follows every answer, as `curl -w "\\n"` writes them, those blank lines are no images.
    """
    blank = [not line.strip() for line in lines]
    after_answer = [False, *(not before for before in blank)]
    spaced = all(blank[i] for i, after in enumerate(after_answer[:-1]) if after) and not after_answer[-1]
    images: list[Line] = []
    for number, line in enumerate(lines, start=1):
        if spaced and blank[number - 1] and after_answer[number - 1]:
            continue
        image = len(images) + 1
        images.append((f"line {number}" if image == number else f"line {number} (image {image})", line))
    return images


def pair_up(reference: Path, candidate: Path) -> list[tuple[Line, Line]]:
    """Pairs the images of both lists.

    Raises UnusableList if their names or lengths differ, or if an image has no answer.
    """
    if reference.is_dir() != candidate.is_dir():
        raise UnusableList(f"{reference} and {candidate} must be both files, or both folders")
    lists = {path: read_list(path) for path in (reference, candidate)}
    _require_answers(lists)
    pairs = []
    for first, second in zip_longest(lists[reference], lists[candidate]):
        if first is None or second is None:
            longer, shorter, line = (candidate, reference, second) if first is None else (reference, candidate, first)
            raise UnusableList(f"{longer} has {line[0]}, but {shorter} ends before it; both need the same images")
        if reference.is_dir() and first[0] != second[0]:
            raise UnusableList(f"{reference} has {first[0]}, but {candidate} has {second[0]}; use the same names")
        pairs.append((first, second))
    if not pairs:
        raise UnusableList(f"{reference} and {candidate} are empty")
    return pairs


def _require_answers(lists: dict[Path, list[Line]]) -> None:
    """Raises UnusableList, which names every image without an answer."""
    blank = {path: [place for place, line in lines if not line.strip()] for path, lines in lists.items()}
    found = [f"{path} has no answer at {', '.join(places)}" for path, places in blank.items() if places]
    if found:
        raise UnusableList(f"{'; '.join(found)}: requests failed; send these images again, or leave them out of both")


def compare_pair(pair: tuple[Line, Line]) -> ImageAgreement:
    """Compares one image. Raises UnusableList, which names the line."""
    masks = []
    for side, (place, line) in zip("AB", pair, strict=True):
        try:
            masks.append(parse_masks(line))
        except InvalidRle as error:
            way_out = "a list has answers of /upload_rle (format rle, uncompressed counts), one a line"
            raise UnusableList(f"{place} of {side} {error}; {way_out}") from error
    try:
        return compare_images(*masks)
    except InvalidRle as error:
        raise UnusableList(f"{pair[0][0]}: {error}") from error


def compare(reference: Path, candidate: Path) -> dict[str, Any]:
    """The figures of two lists, computed on all cores. Raises UnusableList."""
    pairs = pair_up(reference, candidate)
    workers = min(len(os.sched_getaffinity(0)), 1 + len(pairs) // _CHUNK)
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(compare_pair, pairs, chunksize=_CHUNK)
        return summarise(list(tqdm(results, total=len(pairs), unit="image", disable=None, leave=False)))


def report(figures: dict[str, Any]) -> str:
    """The figures as text."""

    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.6f}"

    masks = figures["masks"]
    lines = [
        f"images                      {figures['images']}",
        f"  with another mask count   {figures['count_mismatches']}",
        f"masks                       {masks['reference']} in A, {masks['candidate']} in B",
        f"published mIoU              {show(figures['published_miou'])}  ({figures['published_images']} images)",
        f"matched mIoU, all images    {show(figures['matched_miou'])}",
        f"  5th percentile            {show(figures['matched_miou_p5'])}",
    ]
    for threshold, precision in figures["precision"].items():
        recall = figures["recall"][threshold]
        lines.append(f"at IoU {threshold:<4}                 precision {show(precision)}  recall {show(recall)}")
    return "\n".join(lines)
