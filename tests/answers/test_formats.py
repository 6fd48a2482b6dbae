"""Each format says what the records say, as other libraries read it."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import orjson
import pytest
from answer_masks import HARD, discs, record_of, records_of, unwanted_after
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sam2.utils.amg import coco_encode_rle

from sam2_amg.answers.npz import pack
from sam2_amg.answers.options import AnswerError, Options
from sam2_amg.answers.render import FORMATS, render
from sam2_amg.answers.runs import runs_of

SIZE = (37, 53)
MASKS = [np.ones(SIZE, bool), *discs(20, SIZE)]
RECORDS = records_of(MASKS)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("format", "options", "checks"),
    [
        ("polygons", Options(), 5),
        ("labelmap", Options(), 5),
        ("npz", Options(), 5),
        ("png", Options(), 5),
        ("png", Options(style="boxes"), len(RECORDS) + 5),  # beyond those that lay masks on each other
        ("png", Options(ids=True), len(RECORDS) + 5),
    ],
)
def test_what_nobody_waits_for_ends_between_two_masks(format: str, options: Options, checks: int) -> None:
    with unwanted_after(checks):
        render(format, RECORDS, SIZE, options=options, image=IMAGE)


def test_rle_is_the_answer_of_upload_rle() -> None:
    expected = {f"mask_{i}": record["segmentation"] for i, record in enumerate(RECORDS)}
    answer = render("rle", RECORDS, SIZE)
    assert answer.data == orjson.dumps(expected) + b"\n"
    assert (answer.mimetype, answer.suffix) == ("application/json", ".json")
    text = json.loads(render("rle", RECORDS, SIZE, options=Options(counts="compressed")).data)
    assert text == {f"mask_{i}": coco_encode_rle(record["segmentation"]) for i, record in enumerate(RECORDS)}


def test_records_are_sam2s() -> None:
    data = render("records", RECORDS, SIZE).data
    assert json.loads(data) == RECORDS
    assert data.count(b"\n") == 1
    assert [list(record) for record in json.loads(data)] == [list(record) for record in RECORDS]
    compressed = json.loads(render("records", RECORDS, SIZE, options=Options(counts="compressed")).data)
    assert [record.pop("segmentation") for record in compressed] == [
        coco_encode_rle(record["segmentation"]) for record in RECORDS
    ]
    assert all(record.items() <= full.items() for record, full in zip(compressed, RECORDS, strict=True))


@pytest.mark.parametrize("counts", [None, "compressed", "uncompressed"])
def test_pycocotools_loads_coco(counts: str | None, tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    path.write_bytes(render("coco", RECORDS, SIZE, "dog.jpg", Options(counts=counts)).data)
    coco = COCO(path)
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("dog.jpg", *SIZE)
    assert coco.loadCats(coco.getCatIds())[0]["name"] == "object"
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]], iscrowd=0))
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(RECORDS) + 1))
    for annotation, record, mask in zip(annotations, RECORDS, MASKS, strict=True):
        assert isinstance(annotation["segmentation"]["counts"], list if counts == "uncompressed" else str)
        assert np.array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == record["area"] == coco_mask.area(coco.annToRLE(annotation))
        x, y, width, height = record["bbox"]
        assert (
            annotation["bbox"] == [x, y, width + 1, height + 1] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
        )
        for key in ("predicted_iou", "stability_score", "point_coords", "crop_box"):
            assert annotation[key] == record[key]


def test_a_label_map_has_the_number_of_the_smallest_mask() -> None:
    picture = Image.open(io.BytesIO(render("labelmap", RECORDS, SIZE).data))
    assert picture.mode == "I;16"
    expected = np.zeros(SIZE, int)
    for i in sorted(range(len(MASKS)), key=lambda i: -MASKS[i].sum()):
        expected[MASKS[i]] = i + 1
    assert np.array_equal(np.array(picture), expected)


def test_npz_has_a_bit_a_pixel() -> None:
    data = render("npz", RECORDS, SIZE).data
    assert data == render("npz", RECORDS, SIZE).data
    arrays = np.load(io.BytesIO(data))
    assert arrays["shape"].tolist() == [len(RECORDS), *SIZE]
    assert np.array_equal(arrays["masks"], np.packbits(np.stack(MASKS), axis=2))
    for key in ("area", "bbox", "predicted_iou", "stability_score", "crop_box"):
        assert arrays[key].tolist() == [record[key] for record in RECORDS]
    assert arrays["point_coords"].tolist() == [record["point_coords"][0] for record in RECORDS]


@pytest.mark.parametrize("mask", HARD.values(), ids=list(HARD))
def test_packed_bits_of_hard_masks(mask: np.ndarray) -> None:
    assert np.array_equal(pack(runs_of(record_of(mask)["segmentation"]), mask.shape), np.packbits(mask, axis=1))


def test_without_masks() -> None:
    empty = {name: render(name, [], SIZE, "dog.jpg", image=IMAGE).data for name in FORMATS}
    assert empty["rle"] == b"{}\n"
    assert empty["records"] == empty["polygons"] == b"[]\n"
    assert json.loads(empty["coco"])["annotations"] == []
    assert not np.array(Image.open(io.BytesIO(empty["labelmap"]))).any()
    arrays = np.load(io.BytesIO(empty["npz"]))
    assert arrays["masks"].shape == (0, 37, 7)
    assert arrays["bbox"].shape == (0, 4)
    assert np.array_equal(np.array(Image.open(io.BytesIO(empty["png"]))), IMAGE)


@pytest.mark.parametrize("mask", HARD.values(), ids=list(HARD))
def test_every_format_takes_hard_masks(mask: np.ndarray) -> None:
    for name in FORMATS:
        for options in (Options(), Options("compressed", 1.0, "boxes", 0.5, True), Options(style="outline")):
            image = np.zeros((*mask.shape, 3), np.uint8)
            assert render(name, [record_of(mask)], mask.shape, "", options, image).data


def test_counts_may_be_arrays() -> None:
    arrays = deepcopy(RECORDS)
    for record in arrays:
        record["segmentation"]["counts"] = np.array(record["segmentation"]["counts"], np.int32)
    for name in FORMATS:
        for options in (Options(), Options(counts="compressed"), Options(counts="uncompressed", ids=True)):
            expected = render(name, RECORDS, SIZE, "dog.jpg", options, IMAGE)
            assert render(name, arrays, SIZE, "dog.jpg", options, IMAGE) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_memory_does_not_grow_with_the_masks(name: str) -> None:
    """The pixels of all masks together are 120 MB, and those of one 0.6 MB."""
    size = (600, 1000)
    records, image = records_of(discs(4, size)) * 50, np.zeros((*size, 3), np.uint8)
    options = Options(ids=name == "png")
    render(name, records[:1], size, "", options, image)
    tracemalloc.start()
    try:
        answer = render(name, records, size, "", options, image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6 + 3 * len(answer.data)


def test_rendering_in_another_process() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        options = Options(style="fill")
        futures = [pool.submit(render, name, RECORDS[:3], SIZE, "dog.jpg", options, IMAGE) for name in FORMATS]
        bad = pool.submit(render, "gif", RECORDS, SIZE)
        for name, future in zip(FORMATS, futures, strict=True):
            assert future.result() == render(name, RECORDS[:3], SIZE, "dog.jpg", options, IMAGE)
        with pytest.raises(AnswerError, match=r"format must be one of rle, .*, not gif"):
            bad.result()


def test_what_is_not_allowed_is_named() -> None:
    bad = {
        "counts must be compressed or uncompressed, not x": {"counts": "x"},
        "tolerance must be from 0 to 1000 pixels, not nan": {"tolerance": float("nan")},
        "style must be fill, outline or boxes, not x": {"style": "x"},
        "opacity must be from 0 to 1, not 2": {"opacity": 2},
    }
    for message, options in bad.items():
        with pytest.raises(AnswerError, match=message) as raised:
            Options(**options)
        assert str(pickle.loads(pickle.dumps(raised.value))) == message
    with pytest.raises(AnswerError, match="png needs the photograph"):
        render("png", RECORDS, SIZE)
