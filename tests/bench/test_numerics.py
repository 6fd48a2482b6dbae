"""Signal-to-noise ratios."""

from __future__ import annotations

import pytest
import torch
from helpers import CPU

from bench.numerics import measure_numerics, signal_to_noise
from sam2_amg.config import Mode


def test_signal_to_noise() -> None:
    ones = torch.ones(10)
    assert signal_to_noise(ones, ones) is None
    assert signal_to_noise(ones, ones * 1.1) == pytest.approx(20, abs=1e-4)


def test_numerics_of_ao() -> None:
    (row,) = measure_numerics(["demo"], CPU, points_per_side=3, modes=[Mode.AO])
    assert row["db"]["image embedding"] is None  # the same encoder
    assert row["db"]["low-res logits"] > 80
    assert row["db"]["predicted IoU"] > 80
