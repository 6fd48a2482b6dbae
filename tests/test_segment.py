"""`sam2-amg segment`: what it writes is what the server answers, and how it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import requests
from helpers import LENIENT, ROOT, RunningServer, drawn_image, png
from PIL import Image

from sam2_amg.answers.options import COUNTS, STYLES
from sam2_amg.answers.render import FORMATS
from sam2_amg.cli import segment, targets
from sam2_amg.cli.main import status_of
from sam2_amg.decoding import STRETCHES
from sam2_amg.errors import StartupError
from sam2_amg.parameters import NAMES, Format

FOUR = ("--points_per_side", "4")  # as the server of the tests
TWO = ("--points_per_side", "2")
FEW = ("--device", "cpu", *FOUR, *LENIENT)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png(drawn_image(60, 90)))
    return path


def segment_here(*arguments: object) -> int:
    return status_of("segment", [*map(str, arguments), "--device", "cpu", *LENIENT])


def test_a_folder_of_the_servers_bytes(server: RunningServer, tmp_path: Path, photo: Path) -> None:
    """In a process of its own, of four files, two of which are no photographs."""
    text = tmp_path / "text.jpg"
    text.write_text("text")
    second = tmp_path / "second.jpg"
    Image.fromarray(drawn_image(90, 60, seed=1)).save(second)
    photos = [second, text, tmp_path / "missing.jpg", photo]
    words = ["segment", *photos, "--output", tmp_path / "new" / "masks", "--format=png", *FEW]
    command = [sys.executable, "-m", "sam2_amg", *map(str, words)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert sorted(path.name for path in (tmp_path / "new" / "masks").iterdir()) == ["photo.png", "second.png"]
    for path in (second, photo):
        written = (tmp_path / "new" / "masks" / f"{path.stem}.png").read_bytes()
        assert written == server.post("/upload", path.read_bytes()).content
    errors = [line for line in shown.stderr.splitlines() if "error" in line]
    assert errors[0].startswith(f"python -m sam2_amg segment: error: {text}: The file is not an image")
    assert errors[1].endswith("missing.jpg: cannot be read (No such file or directory); give an image file")
    assert len(errors) == 2
    assert f"{photo} (4 of 4) ..." in shown.stderr


@pytest.mark.parametrize(
    ("format", "parameters"),
    [
        ("rle", {}),
        ("coco", {"max_masks": "2", "counts": "uncompressed"}),
        ("polygons", {"tolerance": "1.5", "points": "[[45, 30], [20, 20.5]]"}),
        ("npz", {"disjoint": "1", "use_m2m": "0", "mask_threshold": "0.5"}),
    ],
)
def test_standard_output_has_the_bytes_of_the_route(
    server: RunningServer, photo: Path, capfdbinary: pytest.CaptureFixture[bytes], format: str, parameters: dict
) -> None:
    switches = {("disjoint", "1"): ["--disjoint"], ("use_m2m", "0"): ["--no_use_m2m"]}
    flags = [word for item in parameters.items() for word in switches.get(item, [f"--{item[0]}", item[1]])]
    assert segment_here(photo, "-o", "-", "--format", format, *flags, *([] if "points" in parameters else FOUR)) == 0
    with photo.open("rb") as file:
        answer = requests.post(
            f"{server.url}/segment", params={"format": format, **parameters}, files={"image": file}, timeout=60
        )
    assert answer.status_code == 200
    assert capfdbinary.readouterr().out == answer.content


def test_a_reader_that_leaves(photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        assert segment_here(photo, "-o", "-", *FOUR) == 1
    assert "standard output cannot be written (Broken pipe)" in capsys.readouterr().err


def test_the_name_chooses_the_format(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in (".JSON", ".png", ".npz"):
        assert segment_here(photo, "-o", tmp_path / f"masks{suffix}", *TWO) == 0
    records = json.loads((tmp_path / "masks.JSON").read_text())
    assert records[0].keys() >= {"segmentation", "area", "predicted_iou"}
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "masks.npz").read_bytes().startswith(b"PK")
    assert f"{len(records)} masks in {tmp_path / 'masks.JSON'}" in capsys.readouterr().err
    assert segment_here(photo, "-o", tmp_path / "few", "--format", "rle", "--max_masks", "1", "--disjoint", *TWO) == 0
    assert json.loads((tmp_path / "few" / "photo.json").read_text()).keys() == {"mask_0"}
    assert segment_here(photo, "-o", f"{tmp_path}/folder/", "--format", "coco", "--points", "[[45, 30]]") == 0
    document = json.loads((tmp_path / "folder" / "photo.json").read_text())
    assert document["images"][0]["file_name"] == "photo.png"
    assert all(mask["point_coords"] == [[45, 30]] for mask in document["annotations"])


def test_what_fails_for_one_photograph(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "masks.json" / "photo.json").mkdir(parents=True)
    assert segment_here(photo, "-o", tmp_path / "masks.json", *TWO) == 1
    assert "photo.json cannot be written (Is a directory)" in capsys.readouterr().err
    assert segment_here(photo, "-o", tmp_path / "a.json", "--points", "[[100, 1]]") == 1
    assert "--points must be within the image of 90 x 60 pixels" in capsys.readouterr().err
    assert segment_here(photo, "-o", tmp_path / "a.json", "--max_pixels", "100") == 1
    assert "over the limit of 100 pixels (--max_pixels)" in capsys.readouterr().err
    assert segment_here(photo, "-o", tmp_path / "a.json", "--model", tmp_path / "none.pt", "demo") == 2
    assert "error: CHECKPOINT_DIR" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg"], "the following arguments are required: -o/--output; see --help"),
        (["-o", "a.json"], "the following arguments are required: PHOTO"),
        (["a.jpg", "-o", "a.txt"], "-o a.txt does not end in .json, .png, .npz; give such a name, or --format"),
        (["a.jpg", "b.jpg", "-o", "-"], "-o - takes one photograph, not 2; give a folder"),
        (["a.jpg", "b.jpg", "-o", "masks.json"], "-o masks.json is a file, and there are 2 photographs"),
        (["a.jpg", "b.jpg", "-o", "README.md"], "-o README.md is a file, and there are 2 photographs"),
        (["a.jpg", "-o", "none/a.json"], "-o none/a.json: there is no folder none; make it, or give another"),
        (["./a.png", "-o", "a.png"], "-o: a.png is one of the photographs, and would be overwritten"),
        (["a.png", "b.png", "-o", "./", "--format", "png"], "-o: a.png is one of the photographs"),
        (["a.jpg", "x/a.png", "-o", "docs"], "-o: a.jpg and x/a.png would both be written to docs/a.json; rename"),
        (["a.jpg", "b.jpg", "-o", "/proc/masks"], "-o /proc/masks cannot be made (No such file or directory)"),
        (["a.jpg", "-o", "a.png", "--counts", "compressed"], "--counts does not apply to the format png"),
        (["a.jpg", "-o", "a.json", "--points", "[1"], "argument --points: '[1' is no JSON"),
        (["a.jpg", "-o", "a.json", "--points", "[1]"], "--points must be JSON [[x, y], ...]"),
        (["a.jpg", "-o", "a.json", "--opacity", "2"], "--opacity must be a number from 0 to 1"),
        (["a.jpg", "-o", "a.json", "--points_per_side", "0"], "--points_per_side must be a whole number from 1"),
        (["a.jpg", "-o", "a.json", "--max_pixels", "0"], "--max_pixels must be from 1 to"),
        (["a.jpg", "-o", "a.json", "--mask_memory_mib", "0"], "--mask_memory_mib must be from 1 to"),
        (["a.jpg", "-o", "a.json", "--furious"], "--furious needs --fast"),
        (["a.jpg", "-o", "a.json", "--model", "checkpoints"], "argument --model: expected 2 arguments"),
        (["a.jpg", "-o", "a.json", "--model", "checkpoints", "huge"], "MODEL_TYPE 'huge' is unknown"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(StartupError) as refused:
        segment.parse(arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_every_parameter_is_a_flag_and_every_choice_is_there() -> None:
    actions = {action.dest: action for action in segment.build_parser()._actions}
    assert actions.keys() >= {*NAMES}
    assert segment.FORMATS == get_args(Format) == tuple(FORMATS)
    for name, choices in (("counts", COUNTS), ("style", STYLES), ("stretch", tuple(STRETCHES))):
        assert actions[name].choices == choices
    for name, made in FORMATS.items():
        assert targets.suffix_of(name) == made.suffix


def test_a_tilde_is_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = segment.parse(["~/a.jpg", "-o", "~/a.json", "--device", "cpu", "--model", "~/best.pt", "demo"])
    assert config.targets == ((tmp_path / "a.jpg", tmp_path / "a.json"),)
    assert config.model.checkpoint_dir == tmp_path / "best.pt"
