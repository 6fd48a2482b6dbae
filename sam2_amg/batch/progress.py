"""How far a batch job is: a line while it runs, a summary at its end."""

from __future__ import annotations

import logging
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from sam2_amg.batch.work import Finished

logger = logging.getLogger("sam2_amg.batch")
_PAUSE = {"text": 30.0, "json": 5.0}  # seconds between two lines of a log


@dataclass
class Counts:
    """What is counted of images. `errors` are by code; `stages` are milliseconds, one number an image."""

    images: int = 0
    masks: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stages: dict[str, array[float]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Adds those of other images."""
        self.images += other.images
        self.masks += other.masks
        self.errors += other.errors
        for stage, milliseconds in other.stages.items():
            self.stages.setdefault(stage, array("f")).extend(milliseconds)


def counts_of(finished: Finished) -> Counts:
    """Those of one image."""
    errors = Counter([] if finished.problem is None else [finished.problem.code])
    stages = {stage: array("f", [milliseconds]) for stage, milliseconds in finished.milliseconds.items()}
    return Counts(1, finished.masks, errors, stages)


class Progress:
    """Counts images. On a terminal there is one line that changes; else a line of the log now and then.

    `total` is how many images are to be made; None if tars hide their number.
    """

    def __init__(self, total: int | None, shards: int, log_format: str) -> None:
        self.counts, self.shards, self.total = Counts(), 0, total
        self._of_shards = shards
        self._begun = self._said = time.monotonic()
        self._pause = _PAUSE[log_format]
        on_terminal = log_format == "text" and sys.stderr.isatty()
        self._bar = tqdm(total=total, unit="image", smoothing=0.02) if on_terminal else None

    def note(self, counts: Counts) -> None:
        """Adds images that are finished."""
        self.counts.add(counts)
        if self._bar is not None:
            self._bar.set_postfix(masks=self.counts.masks, errors=self.counts.errors.total(), refresh=False)
            self._bar.update(counts.images)
        elif time.monotonic() - self._said >= self._pause:
            self._said = time.monotonic()
            self._log("under way", self._figures())

    def end(self, what: str) -> None:
        """Logs the summary of a run that is done, or has ended early."""
        if self._bar is not None:
            self._bar.close()
        self._log(what, {**self._figures(), "stages_ms": self._percentiles()})

    def _figures(self) -> dict[str, Any]:
        seconds, images = time.monotonic() - self._begun, self.counts.images
        rate = images / seconds if seconds else 0.0
        left = (self.total - images) / rate if self.total is not None and rate else None
        return {
            "images": images,
            "of_images": self.total,
            "shards": self.shards,
            "of_shards": self._of_shards,
            "masks": self.counts.masks,
            "errors": dict(self.counts.errors),
            "seconds": round(seconds, 1),
            "images_per_second": round(rate, 2),
            "seconds_left": None if left is None else round(left),
        }

    def _percentiles(self) -> dict[str, dict[str, float]]:
        """p50 and p99 of each stage, milliseconds."""
        return {
            stage: {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 99)}
            for stage, values in self.counts.stages.items()
        }

    def _log(self, what: str, figures: dict[str, Any]) -> None:
        logger.info("%s", _line(what, figures), extra={"fields": {"event": what, **figures}})


def _line(what: str, figures: dict[str, Any]) -> str:
    """The figures for people."""
    of_images = "" if figures["of_images"] is None else f" of {figures['of_images']}"
    errors = sum(figures["errors"].values())
    by_code = ", ".join(f"{count} {code}" for code, count in sorted(figures["errors"].items()))
    line = (
        f"{what}: {figures['images']}{of_images} images in {figures['shards']} of {figures['of_shards']} shards, "
        f"{figures['masks']} masks, {errors} errors{f' ({by_code})' if errors else ''}, "
        f"{figures['images_per_second']} images/s"
    )
    if "stages_ms" not in figures:
        left = figures["seconds_left"]
        return line + ("" if left is None else f", {left // 60} min {left % 60} s left")
    stages = "; ".join(f"{name} {ms['p50']} and {ms['p99']}" for name, ms in figures["stages_ms"].items())
    return f"{line}, {figures['seconds']} s" + (f". p50 and p99, ms: {stages}" if stages else "")
