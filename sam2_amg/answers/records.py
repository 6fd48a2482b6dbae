"""`records`: what sam2's generator returns, field for field."""

from __future__ import annotations

from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.options import Segmented
from sam2_amg.answers.runs import with_counts


def encode(image: Segmented) -> bytes:
    """A list of records with sam2's keys in sam2's order, as a line of JSON. Counts are uncompressed by default."""
    return json_line(with_counts(image, "uncompressed"))
