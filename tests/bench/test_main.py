"""The benchmark harness: its parts, and a small run from beginning to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, ROOT, drawn_image, wait_until
from PIL import Image
from sam2.modeling.sam2_base import SAM2Base

from bench.__main__ import build_parser, machine, main, name_of, stem_of, write
from bench.harness.case import Case
from bench.harness.images import FIRST_SEED, draw_scenes, find_images, scene
from bench.harness.peers import torchao_model
from bench.harness.planted import plant
from bench.harness.systems import SYSTEMS
from bench.harness.timing import StageClock
from bench.harness.weights import seeded_model
from bench.numerics import measure_numerics, signal_to_noise
from bench.report.docs import tables_of
from bench.report.tables import STAGES, to_markdown
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import PHOTOGRAPHS
from training import batches


def run_bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


def test_a_small_run_measures_both_modes_and_can_be_tabled_again(tmp_path: Path) -> None:
    Image.fromarray(drawn_image(60, 90)).save(tmp_path / "one.png")
    Image.fromarray(drawn_image(90, 50, seed=1)).save(tmp_path / "two.png")
    (tmp_path / "paths.txt").write_text(f"{tmp_path}/one.png\n{tmp_path}/two.png\n")
    options = ["--points_per_side", 4, "--repeats", 2, "--requests", 3, "--concurrency", 1, 2, "--device", "cpu"]
    modes = ["--modes", "baseline", "ao", "torchao-64"]
    result = run_bench("--images", tmp_path / "paths.txt", "--out", tmp_path / "out", *options, *modes)
    assert result.returncode == 1, result.stderr  # torchao's generator needs a GPU, and says so
    stem = f"modes-demo-cpu-torch{torch.__version__.split('+')[0]}"
    figures = json.loads((tmp_path / "out" / f"{stem}.json").read_text())
    assert list(figures["systems"]) == ["baseline", "ao"]
    assert figures["missing"] == {"torchao-64": "needs a CUDA device"}
    for system in figures["systems"].values():
        assert system["accuracy"]["images"] == 2
        assert system["accuracy"]["matched_miou"] > 0.999
        assert system["http"]["2"]["requests"] == 4
        assert system["http"]["1"]["p50"] <= system["http"]["1"]["p99"]
        assert [len(row["ms"]) for row in system["generate"]["per_image"]] == [2, 2]
        stages = system["generate"]["stages_ms"]
        assert set(stages) == set(STAGES)
        assert stages["encode"] > 0
        assert stages["decoder"] > 0
        assert system["peak_rss_mib"] > 100
        assert system["recompiles"] == 0
    assert (tmp_path / "out" / f"{stem}.png").stat().st_size > 10_000
    page = (tmp_path / "out" / f"{stem}.md").read_text()
    assert page == to_markdown(figures)
    lists = tmp_path / "out" / "lists" / stem
    assert sorted(path.name for path in lists.iterdir()) == ["ao.jsonl.gz", "baseline.jsonl.gz"]
    (tmp_path / "out" / f"{stem}.md").unlink()
    assert run_bench("--again", tmp_path / "out" / f"{stem}.json", "--out", tmp_path / "out").returncode == 1
    assert (tmp_path / "out" / f"{stem}.md").read_text() == page


def test_one_start_is_the_cold_one(tmp_path: Path) -> None:
    Image.fromarray(drawn_image(60, 90)).save(tmp_path / "one.png")
    (tmp_path / "paths.txt").write_text(f"{tmp_path}/one.png\n")
    options = ["--points_per_side", 2, "--repeats", 1, "--requests", 1, "--concurrency", 1, "--device", "cpu"]
    result = run_bench("--images", tmp_path / "paths.txt", "--out", tmp_path, *options, "--modes", "ao", "--one_start")
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("modes-*.json")
    startup = json.loads(path.read_text())["systems"]["ao"]["startup_s"]
    assert startup["cold"] > 0
    assert startup["warm"] is None
    assert "a second start" not in path.with_suffix(".md").read_text()


def test_a_run_that_is_told_to_end_writes_what_it_has(tmp_path: Path) -> None:
    """Its worker, which is still loading the model, ends with it."""
    command = [sys.executable, "-m", "bench", "--device", "cpu", "--images", PHOTOGRAPHS, "--out", tmp_path]
    process = subprocess.Popen([str(argument) for argument in command], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: process.poll() is not None or children.read_text(), seconds=60)
    (worker,) = (Path("/proc") / number for number in children.read_text().split())
    wait_until(lambda: "libtorch" in (worker / "maps").read_text())
    process.terminate()
    assert process.wait(60) == 1
    assert not worker.exists()
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert result["missing"] == {"baseline": "interrupted", "ao": "interrupted"}


def test_a_mode_that_fails_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "paths.txt").write_text(f"{tmp_path}/broken.png\n")
    result = run_bench("--images", tmp_path / "paths.txt", "--out", tmp_path, "--modes", "ao", "--device", "cpu")
    assert result.returncode == 1
    (path,) = tmp_path.glob("modes-*.json")
    figures = json.loads(path.read_text())
    assert figures["systems"] == {}
    assert figures["missing"]["ao"].startswith("failed: sam2_amg.errors.RequestError")


def test_images_of_a_folder_and_of_a_list(tmp_path: Path) -> None:
    assert [path.name for path in find_images(PHOTOGRAPHS)] == ["dog.jpg", "groceries.jpg", "truck.jpg"]
    (tmp_path / "paths.txt").write_text(f"{PHOTOGRAPHS}/dog.jpg\n\n{tmp_path}/missing.jpg\n")
    with pytest.raises(SystemExit, match=r"missing.jpg is missing"):
        find_images(tmp_path / "paths.txt")
    with pytest.raises(SystemExit, match="no image in it"):
        find_images(tmp_path)


def test_drawn_scenes_are_reproducible_and_not_drawn_twice(tmp_path: Path) -> None:
    assert main(["--draw_only", "--scenes", "2", "--scenes_folder", str(tmp_path)]) == 0
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["scene-0000.jpg", "scene-0001.jpg"]
    pixels = [np.array(Image.open(path)).astype(int) for path in paths]
    assert np.abs(pixels[0] - scene(0)).mean() < 5  # JPEG
    assert pixels[1].shape != pixels[0].shape
    before = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in draw_scenes(2, tmp_path)] == before


def test_scenes_are_never_those_of_training_or_evaluation() -> None:
    assert FIRST_SEED > 10_000
    assert FIRST_SEED + 100_000 < batches.FIRST_SEED


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


def test_planted_outputs_are_reproducible_and_realistic() -> None:
    planted = plant(8, 64, CPU)
    assert torch.equal(planted.logits, plant(8, 64, CPU).logits)
    assert planted.logits.shape == (64, 3, 64, 64)
    passing = planted.predicted_iou > 0.8
    assert 0.1 < passing.float().mean() < 0.4
    assert (planted.logits[passing] > 5).flatten(1).any(1).all()  # every mask that passes has an inside


def test_baseline_and_ao_post_process_the_same_planted_masks() -> None:
    model = seeded_model("demo", CPU)
    config = GeneratorConfig(points_per_side=6)
    planted = plant(6, model.image_size // 4, CPU)
    image = drawn_image(120, 90)
    answers = []
    for name in ("ao", "baseline"):  # baseline's hooks stay on the model
        case = Case(model, "demo", config, CPU, StageClock(CPU), planted)
        generator = SYSTEMS[name].build(case)
        answers.append([generator.generate(image) for _ in range(2)])
        assert answers[-1][0] == answers[-1][1]
    assert answers[0] == answers[1]
    assert len(answers[0][0]) >= 4


def test_seeded_weights_are_reproducible() -> None:
    first, second = (seeded_model("tiny", CPU).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_signal_to_noise() -> None:
    ones = torch.ones(10)
    assert signal_to_noise(ones, ones) is None
    assert signal_to_noise(ones, ones * 1.1) == pytest.approx(20, abs=1e-4)


def test_numerics_of_ao(demo_model: SAM2Base) -> None:
    (row,) = measure_numerics(["demo"], CPU, points_per_side=3, modes=[Mode.AO])
    assert row["db"]["image embedding"] is None  # the same encoder
    assert row["db"]["low-res logits"] > 80
    assert row["db"]["predicted IoU"] > 80


def test_tables_of_a_page_are_found_in_order() -> None:
    page = "# Title\n\n| a |\n| --- |\n| 1 |\n\ntext\n\n| b |\n| --- |\n| 2 |\n"
    assert tables_of(page) == ["| a |\n| --- |\n| 1 |", "| b |\n| --- |\n| 2 |"]


def test_torchaos_model_takes_the_same_weights() -> None:
    state = seeded_model("tiny", CPU).state_dict()
    assert torchao_model("tiny").load_state_dict(state).missing_keys == []
