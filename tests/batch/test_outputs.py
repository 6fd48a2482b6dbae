"""The outputs of the batch job: lines, tars of JSON and PNGs, COCO documents."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answer_masks import HARD, discs, random_masks, records_of
from batch_results import BROKEN, NOT_UTF8, SETTINGS, compressed_records, pixels, result_of, shard, written
from helpers import ROOT
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sam2_amg.answers.render import render
from sam2_amg.answers.runs import MOST_LABELS
from sam2_amg.batch.items import Item, Problem, Result
from sam2_amg.batch.outputs.counts import run_lengths, with_run_lengths
from sam2_amg.batch.outputs.rows import safe_name
from sam2_amg.batch.outputs.sa1b import image_id
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.batch.outputs.unpacked import unpacked
from sam2_amg.batch.stores.folder import FolderStore
from sam2_amg.batch.work import once

TARS = ("sa1b", "labelmap", "overlay")
RESULTS = shard()
SEGMENTED = [result for result in RESULTS if not isinstance(result.found, Problem)]


def members(archive: bytes) -> dict[str, bytes]:
    """The files of a tar, in its order."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errors="surrogateescape") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def rows(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.split(b"\n")[:-1]]


def size_of(result: Result) -> tuple[int, int]:
    assert result.size is not None
    return result.size


def records(result: Result) -> list[Any]:
    assert not isinstance(result.found, Problem)
    return list(result.found)


@pytest.mark.parametrize("height", [4, 7, 480])
def test_run_lengths_are_those_of_pycocotools(height: int) -> None:
    rng = np.random.default_rng(height)
    masks = [rng.random((height, 640)) < share for share in (0, 0.001, 0.1, 0.5, 0.99, 1)]
    masks += discs(20, (height, 640))
    expected = [record["segmentation"]["counts"] for record in records_of(masks)]
    texts = [record["segmentation"]["counts"] for record in compressed_records(masks)]
    assert [lengths.tolist() for lengths in run_lengths(texts)] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [*HARD.values(), *random_masks(30)])
def test_run_lengths_of_hard_masks(mask: np.ndarray) -> None:
    rle = with_run_lengths(compressed_records([mask]))[0]["segmentation"]
    again = coco_mask.frPyObjects([rle], *mask.shape)
    assert np.array_equal(coco_mask.decode(again)[:, :, 0], mask)


def test_run_lengths_of_a_large_image() -> None:
    lengths = [2**31 - 5, 7, 2**30, 1, 3, 2**20]  # a mask of 3.2 gigapixels; differences of both signs
    rle = coco_mask.frPyObjects([{"size": [1, sum(lengths)], "counts": lengths}], 1, sum(lengths))[0]
    assert run_lengths([rle["counts"].decode()])[0].tolist() == lengths
    assert run_lengths([]) == []


def test_lines_hold_the_records_or_the_error() -> None:
    lines = rows(written("jsonl", RESULTS))
    assert [line["image"] for line in lines] == [result.name for result in RESULTS]
    for line, result in zip(lines, RESULTS, strict=True):
        height, width = result.size or (None, None)
        expected = {"image": result.name, "width": width, "height": height, "sha256": result.sha256}
        expected |= {"settings": SETTINGS, "ms": result.milliseconds}
        if isinstance(result.found, Problem):
            assert line == {**expected, "error": {"code": result.found.code, "message": result.found.message}}
        else:
            assert line == {**expected, "masks": result.found}


def test_a_name_of_other_bytes_comes_back() -> None:
    line = rows(written("jsonl", [result_of(NOT_UTF8)]))[0]
    assert os.fsencode(line["image"]) == b"caf\xe9/\xff.jpg"


def test_each_line_is_utf_8_and_one_line() -> None:
    assert len(written("jsonl", RESULTS).decode().splitlines()) == len(RESULTS)


@pytest.mark.parametrize("format", ["jsonl", "coco", *TARS])
def test_a_shard_without_images(format: str) -> None:
    data = written(format, [])
    if format == "coco":
        document = json.loads(data)
        assert (document["images"], document["annotations"], document["errors"]) == ([], [], [])
    elif format == "jsonl":
        assert data == b""
    else:
        assert members(data) == {"rows.jsonl": b""}


@pytest.mark.parametrize("format", TARS)
def test_tars_have_a_member_an_image_and_rows_at_the_end(format: str) -> None:
    suffix = ".json" if format == "sa1b" else ".png"
    files = members(written(format, RESULTS))
    assert list(files) == [*(result.name.lstrip("/") + suffix for result in SEGMENTED), "rows.jsonl"]
    for row, line in zip(rows(files["rows.jsonl"]), rows(written("jsonl", RESULTS)), strict=True):
        masks = line.pop("masks", None)
        assert row == (line if masks is None else {**line, "mask_count": len(masks)})


@pytest.mark.parametrize("format", TARS)
def test_equal_images_make_equal_tars(format: str) -> None:
    assert written(format, RESULTS) == written(format, shard())
    with tarfile.open(fileobj=io.BytesIO(written(format, RESULTS))) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg()) for m in tar} == {
            (0, 0, 0, "", "", 0o644, True)
        }


def test_gnu_tar_reads_the_archive(tmp_path: Path) -> None:
    archive = written("sa1b", RESULTS)
    subprocess.run(["tar", "-x"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert len(archive) % 10240 == 0
    for name, data in members(archive).items():
        assert (tmp_path / name).read_bytes() == data


def test_sa1b_has_the_layout_of_the_data_set() -> None:
    files = members(written("sa1b", RESULTS))
    for result in SEGMENTED:
        document = json.loads(files[result.name.lstrip("/") + ".json"])
        height, width = size_of(result)
        assert document["image"] == {
            "image_id": image_id(result.name),
            "file_name": result.name,
            "width": width,
            "height": height,
        }
        assert document["annotations"] == [{"id": i, **record} for i, record in enumerate(records(result))]


def test_image_ids_are_stable_and_of_63_bits() -> None:
    assert image_id("photos/one.jpg") == 3115199791059324207
    ids = {image_id(f"{i}.jpg") for i in range(1000)} | {image_id(NOT_UTF8)}
    assert len(ids) == 1001
    assert 2**62 < max(ids) < 2**63


@pytest.mark.parametrize(("format", "of_server"), [("labelmap", "labelmap"), ("overlay", "png")])
def test_pictures_are_the_servers(format: str, of_server: str) -> None:
    assert OUTPUTS[format].needs_image == (format == "overlay")
    files = members(written(format, RESULTS))
    for result in SEGMENTED:
        found = with_run_lengths(records(result))
        expected = render(of_server, found, size_of(result), image=result.image)
        assert files[result.name.lstrip("/") + ".png"] == expected.data


def test_a_labelmap_numbers_masks_by_record() -> None:
    result = result_of("a.jpg", 5)
    labels = np.asarray(Image.open(io.BytesIO(members(written("labelmap", [result]))["a.jpg.png"])))
    smallest = min(range(5), key=lambda i: records(result)[i]["area"])
    assert (labels[pixels(records(result)[smallest]["segmentation"])] == smallest + 1).all()
    assert (labels > 0).sum() == np.any([pixels(record["segmentation"]) for record in records(result)], axis=0).sum()


@pytest.mark.parametrize("format", ["labelmap", "overlay"])
def test_more_masks_than_labels_are_a_problem_of_their_image(format: str) -> None:
    many = result_of("many.jpg", 1)
    many = replace(many, found=records(many) * (MOST_LABELS + 1))
    files = members(written(format, [many, result_of("few.jpg")]))
    assert list(files) == ["few.jpg.png", "rows.jsonl"]
    assert rows(files["rows.jsonl"])[0]["error"]["code"] == "too_many_masks"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("/data/a.jpg", "data/a.jpg"),
        ("s3://bucket/a/b.jpg", "s3/bucket/a/b.jpg"),
        ("https://host/a.jpg", "https/host/a.jpg"),
        ("a//./b.jpg", "a/b.jpg"),
        ("...", "..."),
        ("a..b/c", "a..b/c"),
        ("../a.jpg", None),
        ("a/../../b.jpg", None),
        ("s3://../b.jpg", None),
        ("/..", None),
        ("/", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_safe_names(name: str, path: str | None) -> None:
    assert safe_name(name) == path


@pytest.mark.parametrize("format", TARS)
def test_a_name_that_leaves_the_folder_is_a_problem(format: str) -> None:
    outside = result_of("a/../../b.jpg")
    files = members(written(format, [outside]))
    assert list(files) == ["rows.jsonl"]
    error = rows(files["rows.jsonl"])[0]["error"]
    assert error["code"] == "unsafe_name"
    assert "'a/../../b.jpg'" in error["message"]


@pytest.mark.parametrize("format", TARS)
def test_two_images_of_one_member_lose_none_silently(format: str) -> None:
    items = [Item(name, b"") for name in ("a.jpg", "/a.jpg", "a.png", "../a.jpg", "../a.jpg")]
    found = list(once(items, OUTPUTS[format].place_of))
    assert [item.name for item in found] == [item.name for item in items]
    assert [isinstance(item.data, Problem) for item in found] == [False, True, False, False, False]
    assert isinstance(found[1].data, Problem)
    assert found[1].data.code == "same_name"
    assert list(once(items, OUTPUTS["jsonl"].place_of)) == items
    failed = [Item("a.jpg", Problem("unreadable", "gone")), items[1]]
    assert list(once(failed, OUTPUTS[format].place_of)) == failed


@pytest.mark.parametrize("format", TARS)
def test_unpacked_files_are_the_members(format: str, tmp_path: Path) -> None:
    output, lines = unpacked(OUTPUTS[format], FolderStore(tmp_path)), io.BytesIO()
    writer = output.begin(lines, SETTINGS)
    for result in [*RESULTS, result_of("a/../../b.jpg")]:
        writer.add(output.encode(output.check(result)))
    writer.finish()
    expected = members(written(format, [*RESULTS, result_of("a/../../b.jpg")]))
    assert lines.getvalue() == expected.pop("rows.jsonl")
    folder = tmp_path / "files"
    assert {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    } == expected


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    output = unpacked(OUTPUTS["overlay"], FolderStore(tmp_path))
    assert output.check(result_of("x" * 236 + ".jpg")).found == result_of("").found
    found = output.check(result_of("a/" + "ä" * 120 + ".jpg")).found
    assert isinstance(found, Problem)
    assert (found.code, found.message[:33]) == ("unsafe_name", "a part of the name has 244 bytes,")


def test_coco_is_loaded_by_pycocotools(tmp_path: Path) -> None:
    path = tmp_path / "shard.json"
    path.write_bytes(written("coco", RESULTS))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    assert coco.dataset["info"]["settings"] == SETTINGS
    assert [image["file_name"] for image in coco.dataset["images"]] == [result.name for result in SEGMENTED]
    assert sorted(coco.imgs) == list(range(1, len(SEGMENTED) + 1))
    assert list(coco.anns) == list(range(1, sum(len(records(result)) for result in SEGMENTED) + 1))
    for number, result in enumerate(SEGMENTED, start=1):
        assert (coco.imgs[number]["height"], coco.imgs[number]["width"]) == result.size
        assert coco.imgs[number]["sha256"] == result.sha256
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=number))
        for annotation, record in zip(annotations, records(result), strict=True):
            assert annotation["segmentation"] == record["segmentation"]
            assert np.array_equal(coco.annToMask(annotation), pixels(record["segmentation"]))
            assert annotation["bbox"] == coco_mask.toBbox(record["segmentation"]).tolist()
            assert annotation["predicted_iou"] == record["predicted_iou"]


def test_coco_lists_what_failed() -> None:
    errors = json.loads(written("coco", RESULTS))["errors"]
    assert errors[0] == {"file_name": "broken.jpg", "code": BROKEN.code, "message": BROKEN.message}
    assert [error["file_name"] for error in errors] == ["broken.jpg", "late.jpg"]


def test_outputs_import_neither_torch_nor_pyarrow() -> None:
    program = "import sys, sam2_amg.batch.outputs.table; sys.exit(bool({'torch', 'flask', 'pyarrow'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
