"""The benchmark harness from beginning to end, and what its command line refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, drawn_image, wait_until
from PIL import Image

from bench.__main__ import build_parser, machine, main, name_of, stem_of, write
from bench.report.tables import STAGES, server_table, to_markdown
from sam2_amg.demo import PHOTOGRAPHS

STEM = f"modes-demo-cpu-torch{torch.__version__.split('+')[0]}"


def run_bench(images: list[Path], out: Path, *arguments: object) -> int:
    """The harness in this process, and what it measures in processes of their own."""
    (out / "paths.txt").write_text("".join(f"{path}\n" for path in images))
    return main([str(x) for x in ("--images", out / "paths.txt", "--out", out, "--device", "cpu", *arguments)])


def draw(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(drawn_image(60 + 30 * index, 90 - 40 * index, seed=index)).save(path)
    return paths


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of both modes on two images has left its results; torchao's generator needs a GPU."""
    out = tmp_path_factory.mktemp("small_run")
    options = ["--points_per_side", 3, "--repeats", 2, "--generate_images", 1, "--requests", 1, "--concurrency", 2]
    assert run_bench(draw(out, 2), out, *options, "--one_start", "--modes", "baseline", "ao", "torchao-64") == 1
    return out


def figures_in(out: Path) -> dict[str, Any]:
    return json.loads((out / f"{STEM}.json").read_text())


@pytest.mark.xdist_group("bench")
def test_a_small_run_measures_both_modes(small_run: Path) -> None:
    figures = figures_in(small_run)
    assert list(figures["systems"]) == ["baseline", "ao"]
    assert figures["missing"] == {"torchao-64": "needs a CUDA device"}
    for system in figures["systems"].values():
        assert system["accuracy"]["images"] == 2
        assert system["accuracy"]["masks"]["reference"] >= 2
        assert system["accuracy"]["matched_miou"] > 0.999
        assert {clients: load["requests"] for clients, load in system["http"].items()} == {"1": 2, "2": 2}
        assert system["http"]["1"]["p50"] <= system["http"]["1"]["p99"]
        (row,) = system["generate"]["per_image"]
        assert len(row["ms"]) == 2
        assert row["decode_ms"] > 0
        stages = system["generate"]["stages_ms"]
        assert set(stages) == set(STAGES)
        assert stages["encode"] > 0
        assert stages["decoder"] > 0
        assert system["peak_rss_mib"] > 100
        assert system["recompiles"] == 0
    assert (small_run / f"{STEM}.png").stat().st_size > 10_000
    lists = small_run / "lists" / STEM
    assert sorted(path.name for path in lists.iterdir()) == ["ao.jsonl.gz", "baseline.jsonl.gz"]


@pytest.mark.xdist_group("bench")
def test_one_start_is_the_cold_one(small_run: Path) -> None:
    for system in figures_in(small_run)["systems"].values():
        assert system["startup_s"]["cold"] > 0
        assert system["startup_s"]["warm"] is None
    assert "a second start" not in (small_run / f"{STEM}.md").read_text()


@pytest.mark.xdist_group("bench")
def test_a_run_can_be_tabled_again(small_run: Path, tmp_path: Path) -> None:
    page = (small_run / f"{STEM}.md").read_text()
    assert page == to_markdown(figures_in(small_run))
    shutil.copy(small_run / f"{STEM}.json", tmp_path)
    shutil.copytree(small_run / "lists", tmp_path / "lists")
    assert main(["--again", str(tmp_path / f"{STEM}.json"), "--out", str(tmp_path)]) == 1
    assert (tmp_path / f"{STEM}.md").read_text() == page


def test_what_a_server_adds_is_what_generate_and_decoding_do_not_take() -> None:
    image = {"image": "a.jpg", "height_width": [3, 4], "ms": [21.0, 20.0, 19.0], "decode_ms": 4.5}
    figures = {"http": {"1": {"p50_by_image": [30.0]}}, "generate": {"per_image": [image]}}
    assert "| ao | a.jpg | 30.0 | 20.0 | 4.5 | 5.5 |" in server_table({"ao": figures})


@pytest.mark.slow
def test_two_starts_are_measured(tmp_path: Path) -> None:
    options = ["--points_per_side", 2, "--repeats", 1, "--requests", 1, "--concurrency", 1]
    assert run_bench(draw(tmp_path, 1), tmp_path, *options, "--modes", "ao") == 0
    startup = figures_in(tmp_path)["systems"]["ao"]["startup_s"]
    assert startup["cold"] > 0
    assert startup["warm"] > 0
    assert "a second start" in (tmp_path / f"{STEM}.md").read_text()


def started(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A run that writes into the folder, and its worker's folder in /proc."""
    command = [sys.executable, "-m", "bench", "--device", "cpu", "--images", PHOTOGRAPHS, "--out", folder]
    process = subprocess.Popen([str(argument) for argument in command], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: process.poll() is not None or children.read_text(), seconds=60)
    (worker,) = (Path("/proc") / number for number in children.read_text().split())
    return process, worker


@pytest.mark.slow
def test_a_worker_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    """Also where that has just started it, and knows nothing of it yet."""
    process, worker = started(tmp_path)
    process.kill()
    process.wait(60)
    wait_until(lambda: not worker.exists())


def test_a_run_that_is_told_to_end_writes_what_it_has(tmp_path: Path) -> None:
    """Its worker, which is still loading the model, ends with it."""
    process, worker = started(tmp_path)
    wait_until(lambda: "libtorch" in (worker / "maps").read_text())
    process.terminate()
    assert process.wait(60) == 1
    wait_until(lambda: not worker.exists())
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert result["missing"] == {"baseline": "interrupted", "ao": "interrupted"}


def test_a_mode_that_fails_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run_bench([tmp_path / "broken.png"], tmp_path, "--modes", "ao", "--one_start") == 1
    figures = figures_in(tmp_path)
    assert figures["systems"] == {}
    assert figures["missing"]["ao"].startswith("failed: sam2_amg.errors.RequestError")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoints"], "CHECKPOINT_DIR needs a MODEL_TYPE"),
        (["--model_type", "large"], "--model_type large needs --weights seeded"),
        (["--again", "missing.json"], "--again missing.json: there is no such file"),
        (["--scenes", "0"], "must be at least 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "modes"),
        (["--modes", "ao", "torchao-64"], "modes"),
        (["--modes", "torchao-64", "--planted"], "peers"),
        (["--weights", "seeded", "--planted"], "planted"),
        (["--weights", "seeded"], "seeded"),
        (["--batch_size", "4"], "modes-together4"),
        (["--accuracy"], "accuracy"),
    ],
    ids=str,
)
def test_results_are_named_after_what_is_measured(arguments: list[str], name: str) -> None:
    assert name_of(build_parser().parse_args(arguments)) == name


def test_a_result_of_nothing_replaces_no_result(tmp_path: Path) -> None:
    nothing = {"what": "modes", "model": "demo", "machine": machine("cpu"), "systems": {}, "missing": {"ao": "failed"}}
    kept = tmp_path / f"{stem_of(nothing)}.json"
    kept.write_text("measured before")
    write(nothing, tmp_path)
    assert kept.read_text() == "measured before"
