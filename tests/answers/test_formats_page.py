"""docs/formats.md shows real answers, and its Python code reads them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from answer_masks import discs, drawn, record_of, records_of
from helpers import ROOT

from sam2_amg.answers.options import Options
from sam2_amg.answers.render import FORMATS, render

PAGE = (ROOT / "docs" / "formats.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
SIZE = (4, 6)


def code_of(section: str, language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL)
    return code


def read_by_the_page(name: str, data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.chdir(folder)
    (folder / f"masks{FORMATS[name].suffix}").write_bytes(data)
    found: dict[str, object] = {}
    exec(code_of(name, "python").replace("height, width = 4, 6", "height, width = 31, 43"), found)
    return found


def test_the_table_has_all_formats() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.partition("\n- **Order.**")[0], re.MULTILINE) == list(FORMATS)


@pytest.mark.parametrize("name", ["rle", "records", "coco", "polygons"])
def test_examples_are_answers(name: str) -> None:
    (picture,) = re.findall(r"```\n(\. .*?)```", PAGE, re.DOTALL)
    mask = drawn(*picture.replace(" ", "").splitlines())
    record = record_of(mask, predicted_iou=0.97)
    record["stability_score"] = 0.98
    assert mask.shape == SIZE
    assert render(name, [record], SIZE, "dog.jpg").data.decode() == code_of(name, "json")


@pytest.mark.parametrize("counts", ["compressed", "uncompressed"])
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("labelmap", "png")])
def test_clients_read_the_masks(name: str, counts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = discs(8, (31, 43))
    data = render(name, records_of(masks), (31, 43), "dog.jpg", Options(counts=counts)).data
    found = read_by_the_page(name, data, tmp_path, monkeypatch)["masks"]
    assert isinstance(found, list)
    assert all(mask.dtype == bool for mask in found)
    assert np.array_equal(found, masks)


def test_clients_read_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = np.ones((31, 43), bool), np.zeros((31, 43), bool)
    small[3:9, 4:30] = True
    records, image = records_of([small, large]), np.zeros((31, 43, 3), np.uint8)
    found = read_by_the_page("labelmap", render("labelmap", records, (31, 43)).data, tmp_path, monkeypatch)
    assert np.array_equal(found["masks"], [small, large & ~small])
    found = read_by_the_page("png", render("png", records, (31, 43), image=image).data, tmp_path, monkeypatch)
    assert found["picture"].shape == (31, 43, 3)
