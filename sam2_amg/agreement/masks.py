"""Agreement of two sets of masks of the same image, computed on run lengths instead of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

_MAX_PIXELS = 2**32 - 1  # pycocotools counts in uint32
THRESHOLDS = (0.5, 0.75, 0.9)


class InvalidRle(ValueError):
    """A line is not a response of /upload_rle, or two lines have masks of different sizes."""


@dataclass(frozen=True)
class Masks:
    """The masks of one image. `size` is (height, width), or None without masks; `runs` are pycocotools RLEs."""

    size: tuple[int, int] | None
    runs: list[Any]
    areas: NDArray[np.int64]  # [n]


@dataclass(frozen=True)
class ImageAgreement:
    """Agreement of one image. `matched` are the IoUs of the pairs in the best one-to-one matching."""

    reference_count: int
    candidate_count: int
    published: float | None  # mean IoU of pairs by area rank; None if the counts differ or both are 0
    matched: NDArray[np.float64]

    @property
    def score(self) -> float:
        """Mean IoU; a mask without a partner counts 0. 1 if neither side has a mask."""
        larger = max(self.reference_count, self.candidate_count)
        return float(self.matched.sum()) / larger if larger else 1.0


def signal_to_noise(reference: NDArray[np.floating], value: NDArray[np.floating]) -> float:
    """10 log10(sum of reference^2 / sum of difference^2), in dB.

    Infinity if the arrays are equal. Minus infinity if `reference` is all zeros or the difference is not finite.
    """
    noise = float(np.square(reference.astype(np.float64) - value).sum())
    signal = float(np.square(reference, dtype=np.float64).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


def parse_masks(line: bytes) -> Masks:
    """Parses one response of /upload_rle. Raises InvalidRle."""
    try:
        answer = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRle(f"is not JSON ({error})") from error
    if not isinstance(answer, dict):
        raise InvalidRle("is not a JSON object")
    if "error" in answer:
        raise InvalidRle(f"is an error of the server, not masks: {orjson.dumps(answer['error']).decode()[:200]}")
    sizes = {_parse_size(name, rle) for name, rle in answer.items()}
    if len(sizes) > 1:
        raise InvalidRle(f"has masks of different sizes: {sorted(sizes)}")
    if not sizes:
        return Masks(None, [], np.zeros(0, np.int64))
    (size,) = sizes
    counts = [_parse_counts(name, rle, size) for name, rle in answer.items()]
    runs = coco_mask.frPyObjects([{"size": list(size), "counts": runs} for runs in counts], *size)
    return Masks(size, runs, np.array([runs[1::2].sum() for runs in counts]))


def _parse_size(name: str, rle: Any) -> tuple[int, int]:
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise InvalidRle(f"{name}: size must be [height, width]")
    if size[0] * size[1] > _MAX_PIXELS:
        raise InvalidRle(f"{name}: {size[0]} x {size[1]} pixels are over pycocotools' limit of {_MAX_PIXELS}")
    return size[0], size[1]


def _parse_counts(name: str, rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of a mask in canonical form: only the first can be 0, if the mask has pixel 0."""
    given = rle.get("counts")
    try:
        counts = np.asarray(given if isinstance(given, list) and given else None)
    except ValueError:  # nested lists of different lengths
        counts = np.asarray(None)
    if counts.dtype.kind != "i" or counts.ndim != 1 or counts.min() < 0:
        raise InvalidRle(f"{name}: counts must be a list of integers of at least 0")
    if counts.max() > size[0] * size[1]:  # checked first, because the sum could overflow
        raise InvalidRle(f"{name}: a count of {counts.max()} is more than {size[0]} x {size[1]}")
    if counts.sum() != size[0] * size[1]:
        raise InvalidRle(f"{name}: counts add up to {counts.sum()}, not to {size[0]} x {size[1]}")
    positive = np.flatnonzero(counts)
    colour = positive % 2
    starts = np.flatnonzero(np.concatenate(([True], colour[1:] != colour[:-1])))
    runs = np.add.reduceat(counts[positive], starts)
    return np.concatenate(([0], runs)) if colour[0] else runs


def compare_images(reference: Masks, candidate: Masks) -> ImageAgreement:
    """Matches the masks of two responses for one image. Raises InvalidRle if their sizes differ."""
    if reference.size and candidate.size and reference.size != candidate.size:
        raise InvalidRle(f"sizes differ: {reference.size} and {candidate.size}; the images are not the same")
    iou = _pairwise_iou(reference, candidate)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    published = None
    if len(reference.areas) == len(candidate.areas) > 0:
        by_area = (np.argsort(-masks.areas, kind="stable") for masks in (reference, candidate))
        published = float(iou[tuple(by_area)].mean())
    return ImageAgreement(len(reference.areas), len(candidate.areas), published, iou[rows, columns])


def _pairwise_iou(reference: Masks, candidate: Masks) -> NDArray[np.float64]:
    """IoU of each reference mask with each candidate mask, [n, m]. It is 1 for two empty masks."""
    shape = len(reference.runs), len(candidate.runs)
    if 0 in shape:
        return np.zeros(shape)
    iou = coco_mask.iou(reference.runs, candidate.runs, [0] * len(candidate.runs))
    iou[np.ix_(reference.areas == 0, candidate.areas == 0)] = 1.0
    return iou


def summarise(images: Sequence[ImageAgreement]) -> dict[str, Any]:
    """The figures over all images, as `compare` prints them; None if there is nothing to measure."""
    published = [image.published for image in images if image.published is not None]
    scores = np.array([image.score for image in images])
    matched = np.concatenate([np.zeros(0), *(image.matched for image in images)])
    references = sum(image.reference_count for image in images)
    candidates = sum(image.candidate_count for image in images)
    return {
        "images": len(images),
        "count_mismatches": sum(image.reference_count != image.candidate_count for image in images),
        "masks": {"reference": references, "candidate": candidates},
        "published_miou": float(np.mean(published)) if published else None,
        "published_images": len(published),
        "matched_miou": float(scores.mean()) if images else None,
        "matched_miou_p5": float(np.percentile(scores, 5)) if images else None,
        "precision": {str(t): _share(matched >= t, candidates) for t in THRESHOLDS},
        "recall": {str(t): _share(matched >= t, references) for t in THRESHOLDS},
    }


def _share(hits: NDArray[np.bool_], total: int) -> float | None:
    return float(hits.sum() / total) if total else None
