"""The page's modules, run in a browser, against pycocotools, Pillow and the server's own Python."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shlex
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answer_masks import HARD, Mask, discs, random_masks, record_of
from helpers import png
from local_server import LocalServer
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from pycocotools import mask as coco_mask
from scipy import ndimage

from sam2_amg.answers.filters import Filters, filtered
from sam2_amg.answers.options import Options
from sam2_amg.answers.palette import PALETTE
from sam2_amg.answers.render import render
from sam2_amg.answers.runs import as_text, compressed, label_map, painting_order
from sam2_amg.pipeline.base import MaskRecord

NAME = "a photo.png"
THRESHOLDS: list[dict[str, float]] = [
    {},
    {"minIou": 0.85},
    {"minStability": 0.9},
    {"minArea": 40},
    {"maxOverlap": 0.3},
    {"maxOverlap": 0.5},
    {"minIou": 0.84, "minStability": 0.82, "minArea": 12, "maxOverlap": 0.4},
]
LOOKS: list[dict[str, Any]] = [
    {},
    {"style": "fill", "opacity": 0.3},
    {"style": "outline"},
    {"style": "outline", "opacity": 0.5},
    {"style": "boxes", "opacity": 1},
]
LINES: list[dict[str, Any]] = [
    {"format": "coco", "name": "it's.jpg", "filters": {"minArea": 99.5, "maxOverlap": 0.7}},
    {"format": "labelmap", "name": 'a;b,"c\\.png', "search": {"points": [[1, 2.5]], "points_per_side": None}},
    {"format": "png", "name": "-", "search": {"style": "fill"}, "filters": {"minIou": 0.5}, "needsKey": True},
]


@dataclass(frozen=True)
class Case:
    """Masks of an image, bool [h, w] each, with scores among which are ties."""

    label: str
    masks: list[Mask]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.masks[0].shape
        return height, width

    @property
    def records(self) -> list[MaskRecord]:
        scores = np.float32(np.random.default_rng(3).integers(80, 100, (len(self.masks), 2)) / 100)
        records = [record_of(mask, float(iou)) for mask, (iou, _) in zip(self.masks, scores, strict=True)]
        return [{**record, "stability_score": float(score)} for record, (_, score) in zip(records, scores, strict=True)]

    @property
    def photo(self) -> NDArray[np.uint8]:
        return np.random.default_rng(4).integers(0, 256, (*self.size, 3), np.uint8)

    @property
    def names(self) -> list[str]:
        return ["dog", "", "the / dog", "dog"][: len(self.masks)]

    def sent(self) -> dict[str, Any]:
        height, width = self.size
        records = self.records
        for record, rle in zip(records, compressed(records, self.size), strict=True):
            record["segmentation"] = as_text(rle)  # type: ignore[typeddict-item]
        return {
            "name": NAME,
            "width": width,
            "height": height,
            "records": records,
            "photo": base64.b64encode(png(self.photo)).decode(),
            "names": self.names,
            "places": [*np.ndindex(width, height)][:: max(1, width * height // 300)] + OUTSIDE,
        }


OUTSIDE = [(-1, 0), (0, -1), (10**6, 0), (0, 10**6)]
ODD = discs(30, (37, 51), seed=5)
CASES = [
    Case("discs", [mask for mask in discs(60, (24, 33)) if mask.any()]),
    Case("odd size", [*ODD, np.zeros_like(ODD[0]), np.ones_like(ODD[0]), ~ODD[0]]),
    Case("wide lines", discs(5, (640, 601), seed=6)),
    *(Case(label, [mask]) for label, mask in HARD.items()),
    *(Case(f"random {i}", [mask, ~mask]) for i, mask in enumerate(random_masks(16, seed=7))),
]
each_case = pytest.mark.parametrize("case", range(len(CASES)), ids=[case.label for case in CASES])


@pytest.fixture(scope="module")
def found(browser: Browser, served: LocalServer) -> Iterator[dict[str, Any]]:
    """What all modules make of all cases, in one call."""
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(error.message))
    page.goto(f"{served.url}/page/js/masks/rle.js")
    told = {"base": served.url, "images": [case.sent() for case in CASES], "thresholds": THRESHOLDS, "looks": LOOKS}
    told["lines"] = [{"origin": "http://127.0.0.1:5000", **line} for line in LINES]
    yield json.loads(page.evaluate((Path(__file__).parent / "try_modules.js").read_text(), json.dumps(told)))
    page.close()
    assert errors == []


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def texture(text: str, kind: type, size: tuple[int, int]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), kind).reshape(size[::-1]).T


@each_case
def test_run_lengths_are_those_of_pycocotools(found: dict[str, Any], case: int) -> None:
    masks, records, size = CASES[case].masks, CASES[case].records, CASES[case].size
    mine = found["images"][case]
    rles = compressed(records, size)
    assert [each["counts"] for each in mine["masks"]] == [rle["counts"].decode() for rle in rles]
    assert [each["runs"] for each in mine["masks"]] == [record["segmentation"]["counts"] for record in records]
    assert [each["area"] for each in mine["masks"]] == coco_mask.area(rles).tolist()
    assert [each["box"] for each in mine["masks"]] == coco_mask.toBbox(rles).tolist()
    assert coco_mask.frPyObjects({"size": [*size], "counts": mine["union"]}, *size) == coco_mask.merge(rles)
    flat = np.array([mask.ravel() for mask in masks], np.int64)
    assert mine["shared"] == (flat @ flat.T).tolist()
    assert mine["frozen"]


@each_case
def test_a_merged_mask_is_a_record(found: dict[str, Any], case: int) -> None:
    merged, records = found["images"][case]["merged"], CASES[case].records
    both = record_of(np.logical_or.reduce(CASES[case].masks), min(record["predicted_iou"] for record in records))
    (rle,) = compressed([both], CASES[case].size)
    points = [record["point_coords"][0] for record in records]
    stability = min(record["stability_score"] for record in records)
    expected = {**both, "segmentation": as_text(rle), "point_coords": points, "stability_score": stability}
    assert merged == expected
    assert list(merged) == list(both)


@each_case
def test_stacks_have_the_masks_of_each_pixel(found: dict[str, Any], case: int) -> None:
    mine, masks = found["images"][case], CASES[case].masks
    height, width = CASES[case].size
    order = [*reversed(painting_order(CASES[case].records))]  # the smallest first
    assert all(len({*names}) == len(names) for names in mine["lists"])
    ids = texture(mine["ids"], np.uint32, CASES[case].size)
    for number in np.unique(ids):
        here = ids == number
        listed = [i for i in order if (masks[i] & here).any()]
        assert mine["lists"][number] == listed
        assert all((masks[i] | ~here).all() for i in listed)
    for (x, y), names in zip(CASES[case].sent()["places"], mine["at"], strict=True):
        inside = 0 <= x < width and 0 <= y < height
        assert names == ([i for i in order if masks[i][y, x]] if inside else [])


@each_case
def test_pairs_are_those_of_pycocotools(found: dict[str, Any], case: int) -> None:
    rles = compressed(CASES[case].records, CASES[case].size)
    iou = coco_mask.iou(rles, rles, [0] * len(rles))
    pairs = itertools.combinations(range(len(rles)), 2)
    assert found["images"][case]["pairs"] == [[a, b, iou[a, b]] for a, b in pairs if iou[a, b] > 0.3]


@each_case
def test_filters_are_those_of_the_server(found: dict[str, Any], case: int) -> None:
    records = CASES[case].records
    for thresholds, visible in zip(THRESHOLDS, found["images"][case]["visible"], strict=True):
        passing = [
            record
            for record in records
            if record["predicted_iou"] > np.float32(thresholds.get("minIou", 0))
            and record["stability_score"] >= np.float32(thresholds.get("minStability", 0))
        ]
        least = thresholds.get("minArea")
        filters = Filters(int(least) if least else None, mask_nms_thresh=thresholds.get("maxOverlap"))
        assert [records[i] for i in sorted(visible)] == filtered(passing, CASES[case].size, filters)


@each_case
def test_rings_go_round_the_mask(found: dict[str, Any], case: int) -> None:
    height, width = CASES[case].size
    for mask, mine in zip(CASES[case].masks, found["images"][case]["masks"], strict=True):
        walked = np.zeros((height, width + 1), np.int64)  # how often a vertical edge is walked, up less down
        areas = []
        for ring in mine["rings"]:
            x, y = np.reshape(ring, (-1, 2)).T
            dx, dy = np.roll(x, -1) - x, np.roll(y, -1) - y
            assert ((dx == 0) != (dy == 0)).all()
            assert ((dx == 0) != np.roll(dx == 0, 1)).all()  # horizontal and vertical edges take turns
            areas.append(int((x * dy - y * dx).sum()) // 2)
            for at, start, end in zip(x[dy != 0], y[dy != 0], np.roll(y, -1)[dy != 0], strict=True):
                walked[min(start, end) : max(start, end), at] += np.sign(start - end)
        assert (walked.cumsum(1)[:, :-1] == mask).all()  # each edge once, the mask on its right
        outer, holes = ndimage.label(mask)[1], ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1]
        assert (sum(area > 0 for area in areas), sum(area < 0 for area in areas)) == (outer, holes - 1)


@each_case
def test_files_are_those_of_the_server(found: dict[str, Any], case: int) -> None:
    mine, records, size = found["images"][case], CASES[case].records, CASES[case].size
    short = Options(counts="compressed")
    assert mine["records"][0] == json.loads(render("records", records, size, options=short).data)
    assert mine["coco"][0] == json.loads(render("coco", records, size, NAME, options=short).data)
    labels = label_map(records, size).T
    assert np.array_equal(texture(mine["labels"], np.uint16, size), labels)
    assert picture(mine["labelmap"]).mode == "I;16"
    assert np.array_equal(np.array(picture(mine["labelmap"])), labels)


@each_case
def test_overlays_are_those_of_the_server(found: dict[str, Any], case: int) -> None:
    size, photo = CASES[case].size, CASES[case].photo
    for look, text in zip(LOOKS, found["images"][case]["overlays"], strict=True):
        options = Options(style=look.get("style", "fill"), opacity=look.get("opacity"))
        expected = Image.open(io.BytesIO(render("png", CASES[case].records, size, "", options, photo).data))
        assert np.array_equal(np.array(picture(text).convert("RGB")), np.array(expected)), look


@each_case
def test_cutouts_are_the_photograph_within_the_mask(found: dict[str, Any], case: int) -> None:
    mine = iter(found["images"][case]["cutouts"])
    for mask in CASES[case].masks:
        if not mask.any():
            continue
        place = ndimage.find_objects(mask.astype(np.int8))[0]
        alpha = mask[place]
        expected = np.dstack([CASES[case].photo[place] * alpha[..., None], alpha * np.uint8(255)])
        assert np.array_equal(np.array(picture(next(mine))), expected)
    assert next(mine, None) is None


def test_names_are_categories_and_keys(found: dict[str, Any]) -> None:
    """The first case has the names dog, none, the / dog, dog."""
    records, (first, *_) = found["images"][0]["records"][1], [found["images"][0]["coco"][1]]
    assert [record.get("name") for record in records[:5]] == ["dog", None, "the / dog", "dog", None]
    assert [(each["id"], each["name"]) for each in first["categories"]] == [(1, "object"), (2, "dog"), (3, "the / dog")]
    assert [each["category_id"] for each in first["annotations"][:5]] == [2, 1, 3, 2, 1]
    assert found["images"][0]["names"][:4] == ["01-dog.png", "02.png", "03-the-dog.png", "04-dog.png"]


def test_the_palette_is_that_of_the_server(found: dict[str, Any]) -> None:
    assert [tuple(colour) for colour in found["palette"]] == [*PALETTE]
    for case, mine in zip(CASES, found["images"], strict=True):
        assert [index for index, _ in mine["colours"]] == painting_order(case.records)


def test_a_worker_prepares_the_same(found: dict[str, Any]) -> None:
    worked, mine, size = found["worked"], found["images"][0], CASES[0].size
    assert worked["pairs"] == mine["pairs"]
    assert worked["colours"] == mine["colours"]
    before, after = (texture(each["ids"], np.uint32, size) for each in (mine, worked))
    added = np.where(CASES[0].masks[0], len(CASES[0].masks), -1)  # a mask that was added afterwards, as the smallest
    for old, new, first in zip(before.ravel(), after.ravel(), added.ravel().tolist(), strict=True):
        assert worked["lists"][new] == [first] * (first >= 0) + mine["lists"][old]
    assert found["emptyWorker"] == ["stacks", "pairs", "colours"]
    assert "Invalid typed array length" in found["workerError"]


def test_a_zip_is_read(found: dict[str, Any]) -> None:
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(found["zip"]))) as archive:
        assert archive.testzip() is None
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
        assert contents == {"a.txt": b"one", "ü/😀.bin": bytes(70000), "empty": b""}
        assert {info.date_time for info in archive.infolist()} == {(2026, 11, 29, 12, 34, 56)}
    assert zipfile.ZipFile(io.BytesIO(base64.b64decode(found["noFiles"]))).namelist() == []


def test_curl_lines(found: dict[str, Any]) -> None:
    address = "http://127.0.0.1:5000/segment"
    assert [shlex.split(line) for line in found["lines"]] == [
        f"curl -F|image=@it's.jpg|{address}?format=coco&counts=compressed&min_mask_area=100&mask_nms_thresh=0.7"
        "|-o masks.json".replace(" -F", "|-F")
        .replace("-o ", "-o|")
        .split("|"),
        [
            "curl",
            "-F",
            r'image=@"a;b,\"c\\.png"',
            f"{address}?format=labelmap&points=%5B%5B1%2C2.5%5D%5D",
            "-o",
            "masks.png",
        ],
        [
            *("curl", "-H", "Authorization: Bearer KEY", "-F", "image=@./-"),
            *(f"{address}?format=png&style=fill&pred_iou_thresh=0.5", "-o", "masks.png"),
        ],
    ]


def test_what_cannot_be_is_refused(found: dict[str, Any]) -> None:
    assert found["refused"]["cut"] == "RangeError: The run lengths end within a number."
    assert found["refused"]["masks"].startswith("RangeError: 65536 masks are more than the 65535")
    assert found["fromList"] == [1, 2]
