"""Furious with more and less exactness, as `bench.trade` has it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import DEVICE

from bench.numerics import signal_to_noise
from bench.report.pages import write
from bench.trade import forms, main
from sam2_amg.network.encoder import encode
from sam2_amg.network.fp16x3_linear import Fp16x3Linear
from training.network import build


@torch.inference_mode()
def test_forms_have_fewer_and_fewer_float16_weights() -> None:
    """Counted in the encoder, which has eleven blocks of four layers: three blocks in stages 1 and 2."""
    plain = build(64).eval()
    rounded, twice = {}, {}
    for form in forms():
        subgraphs = form.recipe.plain_subgraphs(deepcopy(plain), torch.device("cuda"), 1)
        modules = list(subgraphs.encode.modules())
        rounded[form.name] = sum(getattr(each, "weight", torch.zeros(0)).dtype == torch.float16 for each in modules)
        twice[form.name] = sum(isinstance(each, Fp16x3Linear) for each in modules)
    own = "furious, more exact in {} stages of the encoder"
    assert rounded[own.format(0)] == 4 * 11
    assert rounded["furious"] == rounded["furious with fast's decoder"] == 4 * 11 - 2 * 3
    assert rounded[own.format(4)] == 2 * 11
    assert rounded["furious with fast's encoder"] == rounded["fast"] == 0
    assert twice["fast"] - twice["furious"] == 4 * 11 - 2 * 3 - 4  # the neck's four layers are no linear layers in sam2


@pytest.mark.slow
@torch.inference_mode()
def test_signal_to_noise_grows_with_each_form() -> None:
    torch.manual_seed(0)
    plain = build(64).eval().to(DEVICE)
    pixels = torch.randn(1, 3, 64, 64).to(DEVICE)
    expected = encode(plain, pixels).image_embedding
    decibels = {}
    for form in forms():
        subgraphs = form.recipe.plain_subgraphs(deepcopy(plain), torch.device("cuda"), 1)
        decibels[form.name] = signal_to_noise(expected, subgraphs.encode(pixels)[0])
        assert decibels[form.name] is not None
    own = "furious, more exact in {} stages of the encoder"
    assert decibels[own.format(0)] < decibels["furious"] < decibels[own.format(4)]
    assert decibels["furious"] == decibels["furious with fast's decoder"]
    assert decibels["furious with fast's encoder"] == decibels["fast"] > 90


def test_the_page_has_forms_in_the_order_of_their_times(tmp_path: Path) -> None:
    score = {"error": 5e-5, "masks": 7, "turned": 2}
    row: dict[str, Any] = {"images": 140, "matched_miou": 0.99, "predicted_iou": score, "stability": score}
    rows = [
        {"form": "furious", "median_ms": 22.0, "count_mismatches": 14, **row},
        {"form": "less", "median_ms": 21.0, "count_mismatches": 28, **row},
    ]
    host = {"device": "a GPU", "torch": "2"}
    result = {"what": "trade", "model": "m", "command": "c", "machine": host, "weights": "w", "timed": "large"}
    write({**result, "rows": rows, "missing": {"fast": "interrupted"}}, tmp_path)
    (page,) = tmp_path.glob("*.md")
    assert "Not measured: fast." in page.read_text()
    lines = [line for line in page.read_text().splitlines() if line.startswith(("| less", "| furious"))]
    errors = "| 5.000 | 7 | 2 | 5.000 | 7 | 2 |"
    assert lines == [
        "| less | 21.0 | -1.0 | 140 | 28 | 0.990000 |",
        "| furious | 22.0 | +0.0 | 140 | 14 | 0.990000 |",
        f"| less {errors}",
        f"| furious {errors}",
    ]
    (plot,) = tmp_path.glob("*.png")
    assert plot.stat().st_size > 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_it_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cpu"])
    assert ended.value.code == 2
    assert "furious needs a CUDA GPU, and there is none here" in capsys.readouterr().err
