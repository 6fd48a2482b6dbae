"""The outputs, by the names that --format gives them."""

from __future__ import annotations

from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.coco import COCO
from sam2_amg.batch.outputs.jsonl import JSONL
from sam2_amg.batch.outputs.parquet import PARQUET
from sam2_amg.batch.outputs.pictures import LABELMAP, OVERLAY
from sam2_amg.batch.outputs.sa1b import SA1B

OUTPUTS: dict[str, Output] = {
    "jsonl": JSONL,
    "parquet": PARQUET,
    "sa1b": SA1B,
    "coco": COCO,
    "labelmap": LABELMAP,
    "overlay": OVERLAY,
}
