"""The documentation is true: commands run, files exist, tables are those of results/, and results fit together."""

from __future__ import annotations

import json
import re
import subprocess
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, RunningServer, drawn_image
from PIL import Image

from bench.__main__ import add_accuracy
from bench.report.docs import refresh
from bench.report.pages import page_of
from sam2_amg.cli.serve import build_parser
from sam2_amg.config import AGREEMENT_SOURCE, Mode
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.network.checkpoints import PUBLISHED_URL, URL_VARIABLE
from sam2_amg.network.model_types import MODEL_TYPES

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "training" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RESULTS = sorted((ROOT / "results").glob("*-torch*.json"))
LISTS = ROOT / "results" / "lists"


def shell_line(beginning: str) -> str:
    (line,) = {line for line in README.splitlines() if line.startswith(beginning) and ":5000" in line}
    return line


def test_it_starts_with_the_two_commands() -> None:
    assert re.search(r"```sh\nmake run .*\nmake test ", README[:300])


def test_the_curl_line_works(server: RunningServer, tmp_path: Path) -> None:
    line = shell_line("curl").replace("http://127.0.0.1:5000", server.url).replace("masks.png", f"{tmp_path}/masks.png")
    subprocess.run(line, shell=True, check=True, cwd=ROOT, capture_output=True, timeout=60)
    with Image.open(tmp_path / "masks.png") as drawn:
        assert drawn.size == (800, 534)


def test_the_xargs_line_prints_a_line_an_image(server: RunningServer, tmp_path: Path) -> None:
    names = ["plain.png", "with two spaces.png", "comma, semicolon; and 'quote'.png", "no image.png"]
    for i, name in enumerate(names[:3]):
        Image.fromarray(drawn_image(30 + i, 40)).save(tmp_path / name)
    (tmp_path / "no image.png").write_text("text")
    paths = [tmp_path / name for name in names]
    (tmp_path / "paths.txt").write_text("".join(f"{path}\n" for path in paths))
    line = shell_line("xargs").replace("http://127.0.0.1:5000", server.url)
    subprocess.run(line, shell=True, check=True, cwd=tmp_path, timeout=60)
    answers = [json.loads(line) for line in (tmp_path / "masks.jsonl").read_text().splitlines()]
    assert len(answers) == len(paths)
    for i, answer in enumerate(answers[:3]):
        assert all(mask["size"] == [30 + i, 40] for mask in answer.values())
    assert answers[3]["error"]["code"] == "not_an_image"
    (tmp_path / "paths.txt").write_text(f"{tmp_path}/missing.png\n{paths[0]}\n")
    result = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 123  # as README.md says
    assert "curl" in result.stderr
    assert len((tmp_path / "masks.jsonl").read_text().splitlines()) == 1


def test_the_python_example_decodes_an_answer(server: RunningServer) -> None:
    answer = server.post("/upload_rle", (PHOTOGRAPHS / "dog.jpg").read_bytes()).json()
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"answer": answer}
    exec(example, names)
    pixels = names["pixels"]
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (534, 800)
    assert pixels.sum() == sum(answer["mask_0"]["counts"][1::2])


def test_tables_are_those_of_the_results() -> None:
    assert README.count("<!-- table ") >= 3
    assert refresh(README) == README  # `python -m bench.report.docs` puts them there


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_links_of_a_page_exist(path: Path) -> None:
    page = path.read_text()
    for name in re.findall(r"[(`](results/[^)`\s]+)[)`]", page):
        assert list(ROOT.glob(name)), name
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page):
        assert (path.parent / link).exists(), link


def test_architecture_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    places = [ROOT, *(folder for folder in (ROOT / "sam2_amg").glob("**/") if "__pycache__" not in folder.parts)]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", page):
        assert any((place / name).exists() for place in places), name
    for folder in (ROOT / "sam2_amg").glob("*/"):
        assert f"`sam2_amg/{folder.name}/`" in page or f"`{folder.name}/`" in page or folder.name == "__pycache__"


def test_types_and_addresses_are_those_of_the_code() -> None:
    assert f"{PUBLISHED_URL}/FILE" in README
    assert URL_VARIABLE in README
    for kind in MODEL_TYPES.values():
        assert f"| `{kind.name}` | `{kind.file}`" in README


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.BASELINE], ids=lambda mode: mode.value)
def test_agreement_of_a_mode_is_that_of_the_results(mode: Mode) -> None:
    result = json.loads((ROOT / AGREEMENT_SOURCE).with_suffix(".json").read_text())
    photographs = result["sets"]["photographs"]
    counts = photographs["counts"]
    different = sum(a != b for a, b in zip(counts["baseline"], counts[mode.value], strict=True))
    (miou,) = re.findall(r"matched mIoU ([\d.]+)", mode.agreement)
    digits = len(miou.partition(".")[2])
    assert f"in {different} of {len(photographs['images'])} images" in mode.agreement
    assert miou == f"{photographs['accuracy'][mode.value]['matched_miou']:.{digits}f}"
    assert f"crops of {len(set(photographs['sources']))} photographs" in mode.agreement
    assert f"{result['model']} model, {result['machine']['device']}" in mode.agreement


def test_help_tells_the_agreement_of_the_results() -> None:
    result = json.loads((ROOT / AGREEMENT_SOURCE).with_suffix(".json").read_text())
    accuracy = result["sets"]["photographs"]["accuracy"]
    help_ = " ".join(build_parser().format_help().split())
    for mode, one_in in (("fast", 200), ("furious", 4)):
        assert f"in about 1 image in {one_in}" in help_
        figures = accuracy[mode]
        assert 0.8 < figures["count_mismatches"] / figures["images"] * one_in < 1.25
    assert accuracy["ao"]["count_mismatches"] == 0
    assert f"on {accuracy['ao']['images']} crops of photographs ({result['model']} model, H200)" in help_


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_pages_are_made_of_figures(path: Path) -> None:
    result = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == page_of(result)


@pytest.mark.parametrize(
    "folder", sorted(path for path in LISTS.iterdir() if path.is_dir()), ids=lambda path: path.name
)
def test_kept_lists_give_the_same_agreement_again(folder: Path) -> None:
    result = json.loads((ROOT / "results" / f"{folder.name}.json").read_text())
    again = deepcopy(result)
    add_accuracy(again, folder)
    assert again == result
