"""`labelmap`: a 16-bit grey PNG whose pixels are the numbers of masks."""

from __future__ import annotations

import numpy as np

from sam2_amg.answers.options import Segmented
from sam2_amg.answers.png import encode_png
from sam2_amg.answers.runs import label_map, require_labels


def encode(image: Segmented) -> bytes:
    """A PNG of the image's size. A pixel is 0, or the index of its record plus 1; the smaller mask lies on top.

    Raises AnswerError for more than 65535 masks.
    """
    require_labels(image.records)
    return encode_png(np.ascontiguousarray(label_map(image.records, image.size).T))
