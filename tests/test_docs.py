"""The documentation is true: commands run, files exist, tables are those of results/, and results fit together."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT, RunningServer, drawn_image
from PIL import Image

from bench.__main__ import add_accuracy
from bench.report.docs import PAGES, refresh
from bench.report.pages import page_of
from sam2_amg.cli import compare, export, segment, serve
from sam2_amg.config import AGREEMENT_SOURCE, Limits, Mode
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.network.checkpoints import PUBLISHED_URL, URL_VARIABLE
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.process.version import find_version
from sam2_amg.server.failure import DEVICE_FAILED, JOB_STUCK, WORKER_DIED

README = (ROOT / "README.md").read_text()
HTTP_API = (ROOT / "docs" / "http-api.md").read_text()
WITHOUT_SERVER = (ROOT / "docs" / "without-server.md").read_text()
RESULTS = sorted((ROOT / "results").glob("*-torch*.json"))
LISTS = ROOT / "results" / "lists"


def shell_lines(beginning: str, page: str = README) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(beginning) and ":5000" in line]


def test_the_readme_is_a_screen_and_has_the_two_commands() -> None:
    assert len(README.splitlines()) <= 150
    assert re.search(r"```sh\nmake run .*\nmake test ", README)


def test_the_readme_says_how_the_server_greets(server: RunningServer) -> None:
    (greeting,) = re.findall(r"prints `(Serving [^`]+)`", README)
    assert server.greeting.startswith(greeting)


def test_the_curl_lines_work(server: RunningServer, tmp_path: Path) -> None:
    for line in shell_lines("curl"):
        there = line.replace("http://127.0.0.1:5000", server.url).replace("-o ", f"-o {tmp_path}/")
        subprocess.run(there, shell=True, check=True, cwd=ROOT, capture_output=True, timeout=60)
    with Image.open(tmp_path / "masks.png") as drawn:
        assert drawn.size == (800, 534)
    masks = json.loads((tmp_path / "masks.json").read_text())
    assert masks["mask_0"]["size"] == [534, 800]


def test_the_three_ways_of_sending_get_the_same_answer(server: RunningServer, tmp_path: Path) -> None:
    Image.fromarray(drawn_image(40, 60)).save(tmp_path / "photo.jpg")
    section = HTTP_API.partition("## Send an image")[2]
    (block,) = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    lines = block.replace("http://127.0.0.1:5000", server.url).replace("curl ", "curl -sS ").splitlines()
    runs = [
        subprocess.run(line, shell=True, check=True, cwd=tmp_path, capture_output=True, timeout=60) for line in lines
    ]
    answers = [json.loads(run.stdout) for run in runs]
    assert len(answers) == 3
    assert answers[0]["mask_0"]["size"] == [40, 60]
    assert answers[1] == answers[2] == answers[0]


def test_the_xargs_line_prints_a_line_an_image(server: RunningServer, tmp_path: Path) -> None:
    names = ["plain.png", "with two spaces.png", "comma, semicolon; and 'quote'.png", "no image.png"]
    for i, name in enumerate(names[:3]):
        Image.fromarray(drawn_image(30 + i, 40)).save(tmp_path / name)
    (tmp_path / "no image.png").write_text("text")
    paths = [tmp_path / name for name in names]
    (tmp_path / "paths.txt").write_text("".join(f"{path}\n" for path in paths))
    (line,) = shell_lines("xargs")
    assert shell_lines("xargs", HTTP_API) == [line]
    line = line.replace("http://127.0.0.1:5000", server.url)
    subprocess.run(line, shell=True, check=True, cwd=tmp_path, timeout=60)
    answers = [json.loads(line) for line in (tmp_path / "masks.jsonl").read_text().splitlines()]
    assert len(answers) == len(paths)
    for i, answer in enumerate(answers[:3]):
        assert all(mask["size"] == [30 + i, 40] for mask in answer.values())
    assert answers[3]["error"]["code"] == "not_an_image"
    (tmp_path / "paths.txt").write_text(f"{tmp_path}/missing.png\n{paths[0]}\n")
    result = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 123  # as docs/http-api.md says
    assert "curl" in result.stderr
    assert len((tmp_path / "masks.jsonl").read_text().splitlines()) == 1


def test_the_python_example_decodes_an_answer(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = server.post("/upload_rle", (PHOTOGRAPHS / "dog.jpg").read_bytes())
    (tmp_path / "masks.json").write_bytes(answer.content)
    (example,) = re.findall(r"```python\n(.*?)```", HTTP_API, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    areas = [f"{name} {sum(rle['counts'][1::2])}" for name, rle in answer.json().items()]
    assert capsys.readouterr().out.splitlines() == areas


def test_the_lines_of_python_without_a_server_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(drawn_image(40, 60)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", WITHOUT_SERVER, re.DOTALL):
        fewer = example.replace("points_per_side=16", "points_per_side=4")
        exec(fewer.replace("pred_iou_thresh=0.7", "pred_iou_thresh=0.6, stability_score_thresh=0.9"), names)
    assert len(capsys.readouterr().out.splitlines()) == len(names["records"]) >= 1
    assert names["pixels"].sum() == names["records"][0]["area"]
    (short,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(short, "README.md", "exec")


def test_the_lines_of_shell_without_a_server_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^(?:\.venv/bin/)?sam2-amg segment (.*)$", README + WITHOUT_SERVER, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        words = line.replace("photos/*.jpg", "a.jpg b.jpg").split()
        assert segment.parse([*words, "--device", "cpu"]).targets


def test_tables_are_those_of_the_results() -> None:
    pages = [path.read_text() for path in PAGES]
    assert sum(page.count("<!-- table ") for page in pages) >= 20
    assert [refresh(page) for page in pages] == pages  # `python -m bench.report.docs` puts them there


def test_the_table_of_modes_is_that_of_the_results() -> None:
    """README's time is generate() on truck.jpg, and its agreement counts crops of photographs."""
    results = ROOT / "results"
    speed = json.loads((results / "planted-large-h200-torch2.11.0.json").read_text())["systems"]
    photographs = json.loads((results / "accuracy-demo-h200-torch2.11.0.json").read_text())["sets"]["photographs"]
    counts = photographs["counts"]
    flags = {"`--baseline`": "baseline", "`ao` (no flag)": "ao", "`--fast`": "fast", "`--fast --furious`": "furious"}
    for flag, mode in flags.items():
        (row,) = (line.split(" | ") for line in README.splitlines() if line.startswith(f"| {flag} |"))
        (truck,) = (image for image in speed[mode]["generate"]["per_image"] if image["image"] == "truck.jpg")
        time = statistics.median(truck["ms"])
        assert row[3] == f"{time:.{0 if time >= 100 else 1}f} ms"
        if mode != "baseline":
            differing = sum(a != b for a, b in zip(counts["baseline"], counts[mode], strict=True))
            assert row[4] == f"{differing} of {len(counts[mode])} images |"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_links_of_a_page_exist(path: Path) -> None:
    page = path.read_text()
    for name in re.findall(r"[(`](?:\.\./)*(results/[^)`\s]+)[)`]", page):
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
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert f"{PUBLISHED_URL}/FILE" in page
    assert URL_VARIABLE in page
    for kind in MODEL_TYPES.values():
        assert f"| `{kind.name}` | `{kind.file}`" in page


def test_the_changelog_begins_with_the_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", find_version())
    assert find_version() in headings


def test_every_documented_flag_exists() -> None:
    """Flags of all commands, in pages for users."""
    names = ("http-api", "modes", "deployment", "without-server")
    pages = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in names)]
    parsers = (serve.build_parser(), export.build_parser(), compare.build_parser(), segment.build_parser())
    known = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
    known |= {"--no-compile", "--rm", "--gpus", "--target", "--data-binary", "--compressed"}  # pip's, docker's, curl's
    known |= {"--head", "--address", "--include-dashboard", "--generate"}  # Ray's
    known |= {"--nodes", "--gpus-per-node"}  # SLURM's
    named = {flag for page in pages for flag in re.findall(r"(?<![\w-])--[a-z]\w*(?:-\w+)*", page.read_text())}
    assert len(named) >= 15
    assert named <= known


def test_routes_and_error_codes_are_documented() -> None:
    """Each code that sam2_amg/ raises has its place in docs/http-api.md."""
    code = "\n".join(path.read_text() for path in (ROOT / "sam2_amg").rglob("*.py"))
    codes = set(re.findall(r'RequestError\(\s*\d+,\s*"(\w+)"', code)) | set(re.findall(r'error_body\("(\w+)"', code))
    assert {"queue_full", "not_an_image", "internal_error"} <= codes
    for name in codes - {"not_serving"}:  # /healthz: its 503 is documented
        assert f"`{name}`" in HTTP_API, name
    for route in re.findall(r'@app\.(get|post)\("(/\w+)"\)', code):
        assert f"`{route[0].upper()} {route[1]}`" in HTTP_API
        assert f"`{route[0].upper()} {route[1]}`" in README


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
    help_ = " ".join(serve.build_parser().format_help().split())
    assert "in about 1 image in 6" in help_
    assert 0.8 < accuracy["furious"]["count_mismatches"] / accuracy["furious"]["images"] * 6 < 1.25
    assert "as many masks as baseline in all of them" in help_
    assert accuracy["ao"]["count_mismatches"] == accuracy["fast"]["count_mismatches"] == 0
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


def test_what_supervisors_start_and_ask() -> None:
    unit = (ROOT / "deploy" / "sam2-amg.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+/sam2-amg serve (.*)$", unit, re.MULTILINE)
    limits = serve.build_parser().parse(command.split())
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert float(patience) > limits.drain_timeout + Limits.drain_delay
    service = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["sam2-amg"]
    assert "/healthz" in service["healthcheck"]["test"][-1]
    assert int(service["stop_grace_period"].removesuffix("s")) > Limits.drain_timeout + Limits.drain_delay
    assert (ROOT / "deploy" / service["build"] / "Dockerfile").exists()
    page = (ROOT / "docs" / "deployment.md").read_text()
    for status in (DEVICE_FAILED, JOB_STUCK, WORKER_DIED):
        assert f"\n| {status} | " in page
