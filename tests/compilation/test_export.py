"""Packages: written, loaded in a fresh process, the same masks as compiling gives, and every refusal."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from helpers import CPU, LENIENT, ROOT, photograph, start_server
from pycocotools import mask as coco_mask

from sam2_amg import export
from sam2_amg.cli import parse_export
from sam2_amg.compilation import manifest, triton_cache
from sam2_amg.compilation.aot import from_packages, package_names
from sam2_amg.compilation.isolated_process import ProcessDied, run_in_subprocess
from sam2_amg.compilation.manifest import NAME, Build, check_packages
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR, PHOTOGRAPHS
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import build_generator, static_shapes
from sam2_amg.network.checkpoints import image_size_of, load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.pipeline.base import Generator

KIND = MODEL_TYPES["demo"]
SHAPES = static_shapes(Mode.FAST, image_size_of(KIND), GeneratorConfig(), CPU)
BUILD = Build(DEMO_DIR / KIND.file, "demo", Mode.FAST, CPU, SHAPES)
NAMES = package_names(BUILD.shapes)


def run_export(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "compile_export.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the program, for the CPU. Takes a minute."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("export") / "packages"
    answer = run_export("--fast", "--device", "cpu", "--points_per_side", "3", "--output", str(folder))
    assert answer.returncode == 0, answer.stderr[-3000:]
    decibels = re.search(r"predicted IoU (\d+) dB and logits (\d+) dB above the difference from mode ao", answer.stdout)
    assert decibels is not None
    assert min(int(number) for number in decibels.groups()) >= 90
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, NAME])
    assert not list(folder.parent.glob(".packages*"))  # nothing half-made is left
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="the compiled one is on the GPU")
def test_packages_find_what_compiling_finds(packages: Path, fast: Generator, few_points: GeneratorConfig) -> None:
    model = load_model(DEMO_DIR / KIND.file, KIND, CPU)
    loaded = build_generator(model, Mode.FAST, few_points, CPU, from_packages(packages))
    found, expected = (generator.generate(photograph("dog")) for generator in (loaded, fast))
    assert len(found) == len(expected) >= 3
    for record, twin in zip(found, expected, strict=True):
        assert record["predicted_iou"] == pytest.approx(twin["predicted_iou"], abs=1e-5)
        runs = [coco_mask.frPyObjects(dict(one["segmentation"]), 534, 800) for one in (record, twin)]
        assert coco_mask.iou([runs[0]], [runs[1]], [0])[0, 0] >= 0.9999


def test_kernels_are_kept_by_a_process_that_began_as_a_server_does(packages: Path, tmp_path: Path) -> None:
    """On a CPU there are none; all else is as on a GPU."""
    shutil.copytree(packages, tmp_path / "copy")
    config = parse_export(["--fast", "--device", "cpu", "--points_per_side", "3", "--output", "x"])
    file = run_in_subprocess(export.compile_kernels, config, BUILD, tmp_path / "copy")
    assert file == tmp_path / "copy" / triton_cache.NAME
    assert ZipFile(file).namelist() == []


@pytest.mark.gpu
def test_a_server_on_a_gpu_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton, which would call it for the kernels that are not in packages, finds all of them there."""
    flags = ("--fast", "--furious", "--points_per_side", "8")
    answer = run_export(*flags, "--output", str(tmp_path / "packages"))
    assert answer.returncode == 0, answer.stderr[-3000:]
    monkeypatch.setenv("CC", "/bin/false")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = start_server(*flags, "--load_exported", str(tmp_path / "packages"), *LENIENT)
    try:
        for name in ("dog", "truck"):
            assert server.post("/upload_rle", (PHOTOGRAPHS / f"{name}.jpg").read_bytes()).status_code == 200
        (cache,) = tmp_path.glob("sam2-amg-kernels-*")
        files = {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}
        assert files == set(ZipFile(tmp_path / "packages" / triton_cache.NAME).namelist())
    finally:
        assert server.stop() == 0
        assert server.process.stdout is not None
        server.process.stdout.close()
    assert not cache.exists()


def test_a_fresh_server_compiles_nothing(packages: Path) -> None:
    arguments = ("--fast", "--device", "cpu", "--points_per_side", "4", "--load_exported", str(packages))
    server = start_server(*arguments, *LENIENT)
    try:
        answer = server.post("/upload_rle", (PHOTOGRAPHS / "dog.jpg").read_bytes())
        assert answer.status_code == 200
        assert len(answer.json()) >= 2
        info = server.get("/info").json()
        assert (info["mode"], info["compilations"], info["ready"]) == ("fast", 0, True)
    finally:
        assert server.stop() == 0
        assert server.process.stdout is not None
        server.process.stdout.close()


CHANGED = {
    "format": 0,
    "model type": "large",
    "checkpoint (SHA-256)": "0" * 64,
    "mode": "furious",
    "device": "cuda",
    "architecture": "sm_80",
    "torch": "2.10.0",
    "triton": "3.5.0",
    "CUDA": "12.8",
    "sam2": "1.0",
    "code (SHA-256)": "0" * 64,
    "dtype of inputs": "float16",
    "batch size": 2,
    "points at a time": 1024,
    "shapes": {"encode": [[1, 3, 1024, 1024]]},
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A manifest as it should be, with files that are not packages: none of them is ever opened."""
    from sam2_amg.compilation.manifest import write_manifest

    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    write_manifest(tmp_path, BUILD, [tmp_path / name for name in NAMES])
    check_packages(tmp_path, BUILD, NAMES)
    return tmp_path


def refusal(folder: Path, build: Build = BUILD) -> str:
    with pytest.raises(StartupError) as caught:
        check_packages(folder, build, NAMES)
    message = str(caught.value)
    assert str(folder) in message
    assert "python compile_export.py" in message
    assert "demo --fast --device cpu --output" in message
    return message


def test_every_entry_is_compared(copied: Path) -> None:
    written = json.loads((copied / NAME).read_text())
    assert written.keys() - {"files (SHA-256)"} == CHANGED.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_packages_made_for_something_else_are_refused(copied: Path, name: str) -> None:
    written = json.loads((copied / NAME).read_text())
    (copied / NAME).write_text(json.dumps({**written, name: CHANGED[name]}))
    assert f"made for {name} " in refusal(copied)
    del written[name]
    (copied / NAME).write_text(json.dumps(written))
    if name != "CUDA":  # None on a CPU, as what is not there
        assert f"made for {name} None" in refusal(copied)


def test_damaged_and_missing_files_are_refused(copied: Path) -> None:
    package = copied / "attend.pt2"
    package.write_bytes(package.read_bytes()[:-1])
    assert "attend.pt2 is damaged or was changed" in refusal(copied)
    package.unlink()
    assert "attend.pt2 is missing" in refusal(copied)
    manifest = json.loads((copied / NAME).read_text())
    del manifest["files (SHA-256)"]["attend.pt2"]
    (copied / NAME).write_text(json.dumps(manifest))
    assert "does not list" in refusal(copied)
    (copied / NAME).write_text("[]")
    assert "is no manifest" in refusal(copied)
    (copied / NAME).write_text("{")
    assert "cannot be read" in refusal(copied)
    (copied / NAME).unlink()
    assert "there is no manifest.json" in refusal(copied)


def test_another_checkpoint_is_refused(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(b"other weights")
    assert "made for checkpoint (SHA-256)" in refusal(copied, replace(BUILD, checkpoint=other))


def test_the_server_refuses_before_it_opens_a_package(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "server.py",
        "--fast",
        "--device",
        "cpu",
        "--port",
        "0",
        "--load_exported",
        str(tmp_path),
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 2
    assert "there is no manifest.json; make packages that fit: python compile_export.py" in answer.stderr
    assert "--output DIR, with another folder for DIR" in answer.stderr  # what is there may be anything
    assert "loading encode.pt2" not in answer.stderr


@pytest.mark.parametrize(
    ("file", "is_refused"),
    [
        ("config.py", True),
        ("postprocess/nms.py", True),
        ("kernels/launch_configs.py", True),
        ("network/decoder.py", True),
        ("pipeline/decode.py", True),
        ("compilation/subgraphs.py", True),
        ("modes/furious.py", True),
        ("server/app.py", False),
        ("cli.py", False),
        ("agreement.py", False),
    ],
)
def test_a_changed_line_of_code(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, is_refused: bool
) -> None:
    """Packages are refused after a change of what they depend on, and after no other."""
    code = tmp_path / "code"
    shutil.copytree(ROOT / "sam2_amg", code, ignore=shutil.ignore_patterns("demo", "__pycache__"))
    monkeypatch.setattr(manifest, "_ROOT", code)
    check_packages(copied, BUILD, NAMES)  # the same code in another place
    with (code / file).open("a") as source:
        source.write("# another line\n")
    if is_refused:
        assert "made for code (SHA-256) " in refusal(copied)
    else:
        check_packages(copied, BUILD, NAMES)


def test_packages_that_fail_their_trial_are_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_export(["--fast", "--device", "cpu", "--output", "x"])
    random = np.random.default_rng(0)
    answer = random.random((4, 3), np.float32), random.normal(size=(2, 8, 8)).astype(np.float32)

    def trial(found: tuple[np.ndarray, np.ndarray]) -> list[float]:
        answers = iter([answer, found])
        monkeypatch.setattr(export, "run_in_subprocess", lambda *_: next(answers))
        return export.try_packages(config, BUILD, copied)

    assert trial(answer) == [math.inf, math.inf]
    assert min(trial((answer[0] + 1e-6, answer[1]))) > 100
    for found in ((answer[0] + 0.1, answer[1]), (answer[0], -answer[1]), (answer[0], answer[1] * math.nan)):
        with pytest.raises(StartupError, match=r"packages find something else in dog.jpg \(.*\); they are not kept"):
            trial(found)

    def crash(*_: object) -> None:
        raise ProcessDied("ended by SIGSEGV")

    monkeypatch.setattr(export, "run_in_subprocess", crash)
    with pytest.raises(StartupError, match=r"tried the packages crashed \(ended by SIGSEGV\); they are not kept"):
        export.try_packages(config, BUILD, copied)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "give --fast, or --fast --furious: no other mode"),
        (["--furious", "--output", "x"], "give --fast, or --fast --furious: no other mode"),
        (["--fast", "--furious", "--device", "cpu", "--output", "x"], "--fast --furious needs a CUDA GPU"),
        (["--fast", "--batch_size", "0", "--output", "x"], "--batch_size must be from 1 to 8, not 0"),
        (["--fast", "--points-per-side", "0", "--output", "x"], "--points_per_side must be from 1 to 256"),
        (["--fast", "--output", "tests"], "--output tests is there already"),
        (["demo", "--fast", "--output", "x"], "CHECKPOINT_DIR needs a MODEL_TYPE"),
        (["--fast"], "the following arguments are required: --output"),
    ],
)
def test_bad_command_lines(arguments: list[str], message: str) -> None:
    with pytest.raises(StartupError, match=re.escape(message)):
        export.export(parse_export(arguments))


def test_an_error_is_one_line() -> None:
    answer = run_export("--output", "x")
    assert answer.returncode == 2
    assert answer.stderr.strip().startswith("compile_export.py: error: give --fast, or --fast --furious: no other mode")


def test_an_encoder_for_each_number_of_images() -> None:
    shapes = static_shapes(Mode.FAST, 512, GeneratorConfig(), CPU, batch_size=3)
    assert package_names(shapes)[:3] == ["encode_3.pt2", "encode_2.pt2", "encode.pt2"]
    assert [shapes.examples(name, CPU)[0].shape[0] for name in shapes.names[:3]] == [3, 2, 1]
    assert replace(BUILD, shapes=shapes).command.endswith("--fast --device cpu --batch_size 3")
    assert "batch_size" not in BUILD.command


def test_packages_for_fewer_images_are_refused(copied: Path) -> None:
    build = replace(BUILD, shapes=static_shapes(Mode.FAST, 512, GeneratorConfig(), CPU, batch_size=3))
    with pytest.raises(StartupError, match=r"made for batch size 1, and this server has 3; .* --batch_size 3 --output"):
        check_packages(copied, build, package_names(build.shapes))
