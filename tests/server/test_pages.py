"""docs/http-api.md and docs/formats.md are true of a server: parameters, commands, clients."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from local_server import LocalServer
from PIL import Image

from sam2_amg.answers.render import FORMATS
from sam2_amg.config import Bounds, GeneratorConfig
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.parameters import bounded, need_of, schemas

pytestmark = pytest.mark.xdist_group("local")
HTTP_API = (ROOT / "docs" / "http-api.md").read_text()
FORMATS_PAGE = (ROOT / "docs" / "formats.md").read_text()


def section_of(page: str, name: str) -> str:
    return page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def run(line: str, server: LocalServer, folder: Path) -> None:
    line = line.replace("http://127.0.0.1:5000", server.url).replace("curl ", "curl -sS --fail-with-body ")
    subprocess.run(line, shell=True, check=True, cwd=folder, timeout=60)


def test_the_table_of_parameters_is_that_of_the_model() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\| (.*?) \|$", section_of(HTTP_API, "Parameters"), re.MULTILINE)
    own = GeneratorConfig()
    expected = []
    for name, schema in schemas(bounded(Bounds())).items():
        default = getattr(own, name, None)
        text = "" if default is None else f"{str(default).lower():.6}"
        need = need_of(schema).replace(" (1 or 0)", "")
        expected.append((name, need, text, schema["description"]))
    assert [(name, need.replace("`", ""), default, text) for name, need, default, text in rows] == expected


def test_the_commands_of_parameters_and_batches_work(local: LocalServer, tmp_path: Path) -> None:
    shutil.copy(PHOTOGRAPHS / "dog.jpg", tmp_path / "photo.jpg")
    for name in ("a", "b"):
        with Image.open(PHOTOGRAPHS / "dog.jpg") as dog:
            dog.resize((400, 267)).save(tmp_path / f"{name}.jpg")
    coco, points, picture = re.findall(r"^curl .*", section_of(HTTP_API, "Parameters"), re.MULTILINE)
    run(coco.replace("crop_n_layers=1", "crop_n_layers=0"), local, tmp_path)  # which takes five times as long
    assert len(json.loads((tmp_path / "masks.json").read_text())["annotations"]) >= 2
    run(points, local, tmp_path)
    found = {tuple(record["point_coords"][0]) for record in json.loads((tmp_path / "masks.json").read_text())}
    assert found
    assert found <= {(640, 160), (190, 60)}
    run(picture, local, tmp_path)
    with Image.open(tmp_path / "masks.png") as drawn:
        assert drawn.size == (800, 534)
    form, archive = re.findall(r"^(?:curl|python3) .*", section_of(HTTP_API, "Batches"), re.MULTILINE)
    for line, key in ((form, "annotations"), (archive, "mask_0")):
        run(line, local, tmp_path)
        lines = [json.loads(text) for text in (tmp_path / "masks.jsonl").read_text().splitlines()]
        assert sorted(one["name"] for one in lines) == ["a.jpg", "b.jpg"]
        assert all(key in one["masks"] for one in lines)


@pytest.mark.parametrize("name", FORMATS)
def test_clients_of_each_format(local: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copy(PHOTOGRAPHS / "dog.jpg", tmp_path)
    section = section_of(FORMATS_PAGE, name)
    (command,) = re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    run(command, local, tmp_path)
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(code.replace("height, width = 4, 6", "height, width = 534, 800"), found)
    if name == "png":
        assert np.shape(found["picture"]) == (534, 800, 3)
    else:
        masks = found["masks"]
        assert isinstance(masks, list)
        assert len(masks) >= 2
        assert all(mask.shape == (534, 800) and mask.dtype == bool and mask.any() for mask in masks)
