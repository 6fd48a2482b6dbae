"""Files that the page makes, read by pycocotools and Pillow, and compared with the server's answers."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from page_tools import Asked, pick, says, shown, until_ready
from PIL import Image
from playwright.sync_api import BrowserContext, Page
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO


def saved(page: Page, kind: str, folder: Path) -> Path:
    """The file of a button."""
    with page.expect_download() as download:
        page.locator(f"[data-download={kind}]").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def pixels(file: Path | io.BytesIO) -> NDArray[Any]:
    return np.array(Image.open(file))


def test_json_is_that_of_the_server(shared: Page, asked: Asked, tmp_path: Path) -> None:
    path = saved(shared, "coco", tmp_path)
    assert path.name == "dog.coco.json"
    assert json.loads(path.read_text()) == asked.answer("format=coco&counts=compressed").json()
    coco = COCO(path)
    masks = [coco.annToMask(annotation) for annotation in coco.loadAnns(coco.getAnnIds())]
    records = asked.records()
    assert len(masks) == len(records) > 10
    assert np.array_equal(masks, coco_mask.decode([each["segmentation"] for each in records]).transpose(2, 0, 1))
    assert json.loads(saved(shared, "records", tmp_path).read_text()) == records


def test_pictures_are_those_of_the_server(shared: Page, asked: Asked, tmp_path: Path) -> None:
    labels = pixels(io.BytesIO(asked.answer("format=labelmap").content))
    assert np.array_equal(pixels(saved(shared, "labelmap", tmp_path)), labels)
    for style, opacity in (("Fill", 0.55), ("Outline", 1), ("Boxes", 1)):
        shared.get_by_role("radio", name=style).check()
        answer = asked.answer(f"format=png&style={style.lower()}&opacity={opacity}")
        drawn = pixels(saved(shared, "png", tmp_path))
        assert np.array_equal(drawn[..., :3], pixels(io.BytesIO(answer.content))), style
        assert (drawn[..., 3:] == 255).all()
    shared.get_by_role("radio", name="Fill").check()


def test_cutouts_are_the_photograph_within_masks(shared: Page, asked: Asked, photo: bytes, tmp_path: Path) -> None:
    image = pixels(io.BytesIO(photo))
    with ZipFile(saved(shared, "cutouts", tmp_path)) as archive:
        assert archive.testzip() is None
        pictures = [pixels(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    for record, picture in zip(asked.records(), pictures, strict=True):
        x, y, width, height = (int(value) for value in coco_mask.toBbox(record["segmentation"]))
        mask = coco_mask.decode(record["segmentation"])[y : y + height, x : x + width]
        assert np.array_equal(picture[..., 3], mask * 255)
        assert np.array_equal(picture[mask > 0, :3], image[y : y + height, x : x + width][mask > 0])


def keep(page: Page, *steps: str) -> None:
    page.locator("#viewport").focus()
    for key in steps:
        page.keyboard.press(key)


def test_files_have_what_is_kept_with_its_names(segmented: Page, asked: Asked, tmp_path: Path) -> None:
    records = asked.records()
    keep(segmented, "Home", "Enter", "k", "ArrowRight", "Enter", "ArrowRight", "Shift+Enter", "m", "k")
    names = segmented.locator("#kept input")
    assert names.count() == 2
    for field, name in zip(names.all(), ("a hiking dog", "its friend"), strict=True):
        field.press_sequentially(name)  # keys that are edits elsewhere
        field.press("Tab")
    says(segmented, "#save-what", "2 masks")
    first, merged = json.loads(saved(segmented, "records", tmp_path).read_text())
    assert first == {**records[0], "name": "a hiking dog"}
    union = coco_mask.merge([records[1]["segmentation"], records[2]["segmentation"]])
    assert merged["segmentation"] == {"size": union["size"], "counts": union["counts"].decode()}
    assert merged["area"] == coco_mask.area(union)
    x, y, width, height = coco_mask.toBbox(union)
    assert merged["bbox"] == [x, y, width - 1, height - 1]
    assert merged["predicted_iou"] == min(record["predicted_iou"] for record in records[1:3])
    assert merged["name"] == "its friend"
    coco = COCO(saved(segmented, "coco", tmp_path))
    assert [coco.loadCats(each["category_id"])[0]["name"] for each in coco.loadAnns(coco.getAnnIds())] == [
        "a hiking dog",
        "its friend",
    ]
    labels = pixels(saved(segmented, "labelmap", tmp_path))
    small, large = sorted(
        ((record["area"], i, coco_mask.decode(record["segmentation"])) for i, record in enumerate((first, merged), 1)),
        key=lambda each: each[0],
    )
    assert np.array_equal(labels, np.where(small[2], small[1], large[2] * large[1]))
    with ZipFile(saved(segmented, "cutouts", tmp_path)) as archive:
        assert archive.namelist() == ["1-a-hiking-dog.png", "2-its-friend.png"]


def check_overlays(mine: NDArray[Any], answer: NDArray[Any], labels: NDArray[Any]) -> None:
    """Two overlays, [h, w, 3] each, are the same but for the colours of some masks."""
    same = (mine == answer).all(axis=-1)
    assert same[labels == 0].all()
    assert np.array_equal((mine == 255).all(axis=-1), (answer == 255).all(axis=-1))
    inside = (labels > 0) & ~(answer == 255).all(axis=-1)
    agreeing = [same[inside & (labels == label)] for label in np.unique(labels[inside])]
    assert all(pixels.all() or not pixels.any() for pixels in agreeing)
    assert any(pixels.all() for pixels in agreeing)


def test_the_curl_line_gets_the_same(page: Page, photo: bytes, tmp_path: Path) -> None:
    name = 'it\'s, a dog; "1".png'
    (tmp_path / name).write_bytes(photo)
    pick(page, photo, name)
    until_ready(page)
    total = shown(page)
    page.locator("#search summary").click()
    page.get_by_label("Most overlap of boxes").fill("0.9")
    page.locator("#search-form").get_by_role("button", name="Search again").click()
    page.wait_for_selector(f"#viewport:not([data-visible='{total}'])")
    until_ready(page)
    total = shown(page)
    page.locator("#min-iou").fill("0.45")
    page.locator("#max-overlap").fill("0.5")
    page.locator("#min-area").fill("45")
    assert 0 < shown(page) < total
    page.locator("#curl summary").click()
    labels = np.zeros(0)
    for kind in ("coco", "records", "labelmap", "png"):
        page.locator("#curl-format").select_option(kind)
        line = page.locator("#curl-line").inner_text()
        subprocess.run(["bash", "-c", line.replace("curl", "curl -sS", 1)], cwd=tmp_path, check=True, timeout=30)
        mine = saved(page, kind, tmp_path)
        if kind == "png":
            check_overlays(pixels(mine)[..., :3], pixels(tmp_path / "masks.png"), labels)
            continue
        if kind == "labelmap":
            labels = pixels(mine)
            assert np.array_equal(labels, pixels(tmp_path / "masks.png"))
            continue
        answer, own = json.loads((tmp_path / "masks.json").read_text()), json.loads(mine.read_text())
        assert own == answer
        assert len(own if kind == "records" else own["annotations"]) == shown(page)


def test_the_curl_line_is_copied(context: BrowserContext, segmented: Page) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    segmented.locator("#curl summary").click()
    segmented.get_by_role("button", name="Copy").click()
    says(segmented, "#copy", "Copied")
    copied = segmented.evaluate("() => navigator.clipboard.readText()")
    assert copied == segmented.locator("#curl-line").inner_text()


def test_a_photograph_that_the_browser_cannot_show_has_files(
    page: Page, asked: Asked, photo: bytes, tmp_path: Path
) -> None:
    """There are no pictures of what it does not have."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(buffer, "TIFF")
    pick(page, buffer.getvalue(), "dog.tif", "image/tiff")
    until_ready(page)
    assert json.loads(saved(page, "records", tmp_path).read_text()) == asked.records()
    assert page.locator("[data-download]:disabled strong").all_inner_texts() == ["Overlay", "Cut-outs"]
    says(page, "#save-not", "cannot show the photograph")
