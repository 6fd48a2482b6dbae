"""Decisions of modes beside float32's, as `bench.decisions` counts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import CPU, drawn_image
from small_model import small_demo_model

from bench.decisions import Found, figures, find, generator_of
from bench.report.tables import decisions_markdown
from sam2_amg.agreement.masks import parse_masks
from sam2_amg.config import GeneratorConfig, Mode

CONFIG = GeneratorConfig(points_per_side=3, pred_iou_thresh=0.5, stability_score_thresh=0.8)
TWO = b'{"mask_0": {"size": [2, 2], "counts": [0, 2, 2]}, "mask_1": {"size": [2, 2], "counts": [3, 1]}}'
ONE = b'{"mask_0": {"size": [2, 2], "counts": [0, 2, 2]}}'


def test_decisions_and_errors_are_counted() -> None:
    """Of four masks: one crosses the threshold of predicted IoU, one that of stability, one is far below."""
    expected = Found(parse_masks(TWO), torch.tensor([[0.9, 0.501, 0.6], [0.2, 0.7, 0.1]]), torch.full((2, 3), 0.9))
    found = Found(
        parse_masks(ONE),
        torch.tensor([[0.9, 0.499, 0.6], [0.3, 0.7, 0.1]]),
        torch.tensor([[0.9, 0.1, 0.79], [0.9, torch.nan, 0.9]]),
    )
    row = figures([(expected, found), (expected, expected)], CONFIG)
    assert (row["images"], row["count_mismatches"], row["matched_miou"]) == (2, 1, 0.75)
    assert row["predicted_iou"] == {"error": pytest.approx(0.002 / 8, rel=1e-3), "masks": 8, "turned": 1}
    assert row["stability"] == {"error": pytest.approx(0.11 / 6, rel=1e-3), "masks": 6, "turned": 2}
    host = {"device": "a GPU", "torch": "2"}
    result = {"model": "m", "command": "c", "machine": host, "weights": "w", "crops": ["whole"]}
    page = decisions_markdown({**result, "rows": [{"mode": "fast", **row}]})
    assert "| fast | 2 | 1 | 0.750000 | 25.000 | 8 | 1 | 1833.333 | 6 | 2 |" in page


def test_fast_decides_as_ao_does(tmp_path: Path) -> None:
    """On a CPU both have float32 products; the masks are those of the generator."""
    image = drawn_image(120, 160)
    found = []
    for mode in (Mode.AO, Mode.FAST):
        generator = generator_of(small_demo_model(128), mode, replace(CONFIG, points_per_batch=8), CPU)
        found.append(find(generator, image))
        assert len(found[-1].masks.areas) == len(generator.generate(image)) > 0
    row = figures([(found[0], found[1])], CONFIG)
    assert (row["count_mismatches"], row["predicted_iou"]["turned"], row["stability"]["turned"]) == (0, 0, 0)
    assert 0 < row["predicted_iou"]["masks"] <= 27
    assert row["predicted_iou"]["error"] < 1e-5
