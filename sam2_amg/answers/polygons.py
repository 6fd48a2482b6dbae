"""`polygons`: the edges of masks as COCO's polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.keyholes import cut_open
from sam2_amg.answers.options import Segmented
from sam2_amg.answers.rings import Part, Ring, parts_of
from sam2_amg.answers.runs import Runs, runs_of
from sam2_amg.process.wanted import while_wanted


def simplified(parts: list[Part], tolerance: float) -> list[Part]:
    """Parts with fewer corners, by Douglas and Peucker's algorithm. Parts and holes neither vanish nor cross.

    A corner that is left out is at most about `tolerance` pixels from the edge that takes its place.
    """
    polygons = shapely.multipolygons([shapely.Polygon(part.outer, part.holes) for part in parts])
    simple = shapely.orient_polygons(shapely.simplify(polygons, tolerance, preserve_topology=True))
    return [
        Part(_ring(polygon.exterior), tuple(_ring(hole) for hole in polygon.interiors))
        for polygon in shapely.get_parts(simple)
    ]


def _ring(line: shapely.LinearRing) -> Ring:
    return shapely.get_coordinates(line)[:-1]


def polygons_of(runs: Runs, height: int, tolerance: float = 0.0) -> list[NDArray[Any]]:
    """The polygons of a mask, each a flat array x, y, x, y, ... of pixel corners: pixel (0, 0) spans 0 to 1.

    Each part of the mask is a polygon. Holes are cut open (`cut_open`). With tolerance 0 the coordinates are integers,
    and pycocotools' `frPyObjects` makes exactly the mask of them.
    """
    parts = parts_of(runs, height)
    if tolerance > 0 and parts:
        parts = simplified(parts, tolerance)
    kind = np.int64 if tolerance == 0 else np.float64
    return [cut_open(part).astype(kind).ravel() for part in parts]


def encode(image: Segmented) -> bytes:
    """The records, with a list of polygons as `segmentation`, as a line."""
    answer = []
    for record in while_wanted(image.records):
        polygons = polygons_of(runs_of(record["segmentation"]), image.size[0], image.options.tolerance)
        answer.append({**record, "segmentation": [polygon.tolist() for polygon in polygons]})
    return json_line(answer)
