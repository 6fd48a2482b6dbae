"""Polygons are exactly the masks, and simplified ones are near them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from answer_masks import HARD, Mask, discs, random_masks, record_of, records_of
from helpers import processor_seconds
from pycocotools import mask as coco_mask
from scipy import ndimage

from sam2_amg.answers.options import Options
from sam2_amg.answers.polygons import polygons_of, simplified
from sam2_amg.answers.render import render
from sam2_amg.answers.rings import Part, parts_of
from sam2_amg.answers.runs import runs_of

ALL = [*HARD.values(), *random_masks(300)]


def polygons(mask: Mask, tolerance: float = 0.0) -> list[np.ndarray]:
    return polygons_of(runs_of(record_of(mask)["segmentation"]), len(mask), tolerance)


def parts(mask: Mask) -> list[Part]:
    return parts_of(runs_of(record_of(mask)["segmentation"]), len(mask))


def signed_area(polygon: np.ndarray) -> float:
    x, y = polygon.reshape(-1, 2).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def test_pycocotools_makes_the_mask_of_its_polygons() -> None:
    for mask in ALL:
        found = polygons(mask)
        assert all(polygon.dtype == np.int64 for polygon in found)
        rles = coco_mask.frPyObjects([polygon.tolist() for polygon in found], *mask.shape)
        assert np.array_equal(coco_mask.decode(coco_mask.merge(rles)), mask), mask.astype(int)


def test_parts_are_valid_and_have_the_area_of_the_mask() -> None:
    """Judged by shapely; parts hang together by the sides of pixels, as SciPy counts them."""
    holes = 0
    for mask in ALL:
        found = parts(mask)
        shapes = [shapely.Polygon(part.outer, part.holes) for part in found]
        assert all(shapely.is_valid(shapes))
        assert len(found) == ndimage.label(mask)[1]
        assert sum(shape.area for shape in shapes) == mask.sum()
        holes += sum(len(part.holes) for part in found)
        for part, polygon in zip(found, polygons(mask), strict=True):
            holes_area = sum(signed_area(hole.ravel()) for hole in part.holes)
            assert signed_area(polygon) == signed_area(part.outer.ravel()) + holes_area
            assert len(polygon) >= 8
            assert (polygon.reshape(-1, 2) != np.roll(polygon, 2).reshape(-1, 2)).any(axis=1).all()  # no point twice
            assert signed_area(part.outer.ravel()) > 0
            assert all(signed_area(hole.ravel()) < 0 for hole in part.holes)
    assert holes > 100


@pytest.mark.parametrize("tolerance", [0.5, 3.0])
def test_simplified_polygons_keep_parts_and_holes(tolerance: float) -> None:
    for mask in ALL[:100]:
        exact = parts(mask)
        simple = simplified(exact, tolerance)
        assert [len(part.holes) for part in simple] == [len(part.holes) for part in exact]
        shapes = [shapely.Polygon(part.outer, part.holes) for part in simple]
        assert shapely.is_valid(shapely.MultiPolygon(shapes))
        areas = [signed_area(polygon) for polygon in polygons(mask, tolerance)]
        assert areas == pytest.approx([shape.area for shape in shapes])


def test_simplified_polygons_are_short_and_near() -> None:
    for mask in discs(20, (200, 300)):
        exact, simple = polygons(mask), polygons(mask, 1.5)
        if mask.sum() > 500:
            assert sum(map(len, simple)) < sum(map(len, exact)) / 4
        rles = coco_mask.frPyObjects([polygon.tolist() for polygon in simple], *mask.shape)
        again = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
        wrong = again != mask
        near = ndimage.binary_dilation(mask ^ ndimage.binary_erosion(mask), iterations=3)
        assert not (wrong & ~near).any()


def test_holes_stay_open_when_simplified() -> None:
    y, x = np.mgrid[:101, :101]
    far = np.hypot(y - 50, x - 50)
    ring = ((far < 45) & (far > 30)) | (far < 12)
    simple = polygons(ring, 1.0)
    assert len(simple) == 2
    rles = coco_mask.frPyObjects([polygon.tolist() for polygon in simple], *ring.shape)
    again = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
    assert (again & ring).sum() / (again | ring).sum() > 0.95


def test_the_answer_has_the_other_fields() -> None:
    records = records_of(discs(5, (30, 40)))
    answer = json.loads(render("polygons", records, (30, 40)).data)
    for record, found in zip(records, answer, strict=True):
        assert list(found) == list(record)
        segmentation = found.pop("segmentation")
        assert found.items() <= record.items()
        rles = coco_mask.frPyObjects(segmentation, 30, 40)
        assert coco_mask.area(coco_mask.merge(rles)) == record["area"]
    coarse = render("polygons", records, (30, 40), options=Options(tolerance=2)).data
    assert len(coarse) < len(render("polygons", records, (30, 40)).data)


def test_many_holes_take_no_long_time() -> None:
    mask = np.kron(np.random.default_rng(0).random((128, 128)) < 0.8, np.ones((4, 4), bool))
    found = polygons(mask)
    assert processor_seconds(lambda: polygons(mask)) < 2
    rles = coco_mask.frPyObjects([polygon.tolist() for polygon in found], *mask.shape)
    assert np.array_equal(coco_mask.decode(coco_mask.merge(rles)), mask)
