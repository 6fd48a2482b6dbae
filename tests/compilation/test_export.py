"""Packages: written, loaded by a server, the same masks as compiling gives; and what is refused."""

from __future__ import annotations

import math
import os
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from demo_packages import BUILD, NAMES, write_empty_packages
from helpers import LENIENT, build_compiled, photograph, run_export, start_server
from pycocotools import mask as coco_mask

from sam2_amg import export
from sam2_amg.cli.export import parse as parse_export
from sam2_amg.compilation import triton_cache
from sam2_amg.compilation.isolated_process import ProcessDied
from sam2_amg.compilation.manifest import NAME
from sam2_amg.config import GeneratorConfig, Mode, ModelConfig
from sam2_amg.demo import DEMO_DIR, PHOTOGRAPHS
from sam2_amg.errors import StartupError
from sam2_amg.modes.load import load_generator
from sam2_amg.pipeline.base import Generator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_empty_packages(tmp_path)
    return tmp_path


def test_what_is_written(packages: Path) -> None:
    assert sorted(path.name for path in packages.iterdir()) == sorted([*NAMES, NAME])
    assert not list(packages.parent.glob(".packages*"))  # nothing half-made is left


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the compiled one is on the GPU")
def test_packages_find_what_compiling_finds(fast: Generator, few_points: GeneratorConfig) -> None:
    """Packages find what ao finds in test_fast.py, and what is compiled finds it in test_jit.py, with a small model."""
    compiled = build_compiled(Mode.FAST, few_points)
    found, expected = (generator.generate(photograph("dog")) for generator in (fast, compiled))
    assert len(found) == len(expected) >= 3
    for record, twin in zip(found, expected, strict=True):
        assert record["predicted_iou"] == pytest.approx(twin["predicted_iou"], abs=1e-5)
        runs = [coco_mask.frPyObjects(dict(one["segmentation"]), 534, 800) for one in (record, twin)]
        assert coco_mask.iou([runs[0]], [runs[1]], [0])[0, 0] >= 0.9999


def test_kernels_are_kept(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU there are none; all else is as on a GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "set anew")
    shutil.copytree(packages, tmp_path / "copy")
    config = parse_export(["--fast", "--device", "cpu", "--points_per_side", "3", "--output", "x"])
    file = export.compile_kernels(config, BUILD, tmp_path / "copy")
    assert file == tmp_path / "copy" / triton_cache.NAME
    assert ZipFile(file).namelist() == []
    assert os.environ["TRITON_CACHE_DIR"] != "set anew"


@pytest.mark.gpu
def test_a_server_on_a_gpu_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton, which would call it for the kernels that are not in packages, finds all of them there."""
    monkeypatch.delenv("TRITON_PTXAS_PATH", raising=False)  # what torch compiled in this process may have set it
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


def test_a_server_refuses_before_it_opens_a_package(tmp_path: Path) -> None:
    said: list[str] = []
    model = ModelConfig(DEMO_DIR, "demo", Mode.FAST, load_exported=tmp_path)
    with pytest.raises(StartupError, match="json is missing; make packages that fit: sam2-amg export") as caught:
        load_generator(model, GeneratorConfig(), said.append)
    assert "--output DIR, with another folder for DIR" in str(caught.value)  # what is there may be anything
    assert said == ["loading sam2.1_hiera_demo.pt and checking the packages"]


def test_packages_that_fail_their_trial_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_export(["--fast", "--device", "cpu", "--output", "x"])
    random = np.random.default_rng(0)
    answer = random.random((4, 3), np.float32), random.normal(size=(2, 8, 8)).astype(np.float32)

    def trial(found: tuple[np.ndarray, np.ndarray]) -> list[float]:
        answers = iter([answer, found])
        monkeypatch.setattr(export, "run_in_subprocess", lambda *_: next(answers))
        return export.try_packages(config, BUILD, folder)

    assert trial(answer) == [math.inf, math.inf]
    assert min(trial((answer[0] + 1e-6, answer[1]))) > 100
    for found in ((answer[0] + 0.1, answer[1]), (answer[0], -answer[1]), (answer[0], answer[1] * math.nan)):
        with pytest.raises(StartupError, match=r"packages disagree with mode ao on dog.jpg \(.*\); they are not kept"):
            trial(found)

    def crash(*_: object) -> None:
        raise ProcessDied("ended by SIGSEGV")

    monkeypatch.setattr(export, "run_in_subprocess", crash)
    with pytest.raises(StartupError, match=r"tried the packages crashed \(ended by SIGSEGV\); they are not kept"):
        export.try_packages(config, BUILD, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "give --fast, or --fast --furious: the other modes"),
        (["--furious", "--output", "x"], "give --fast, or --fast --furious: the other modes"),
        (["--fast", "--furious", "--device", "cpu", "--output", "x"], "--fast --furious needs a CUDA GPU"),
        (["--fast", "--batch_size", "0", "--output", "x"], "--batch_size must be from 1 to 32, not 0"),
        (["--fast", "--points-per-side", "0", "--output", "x"], "--points_per_side must be from 1 to 256"),
        (["--fast", "--output", "tests"], "--output tests already exists"),
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
    assert answer.stderr.strip().startswith("compile_export.py: error: give --fast, or --fast --furious: ")
