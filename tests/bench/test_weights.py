"""Weights to measure with: the same every time, in every class of model."""

from __future__ import annotations

import torch
from helpers import CPU

from bench.harness.peers import torchao_model
from bench.harness.weights import seeded_model


def test_seeded_weights_are_reproducible() -> None:
    first, second = (seeded_model("tiny", CPU).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_torchaos_model_takes_the_same_weights() -> None:
    state = seeded_model("tiny", CPU).state_dict()
    assert torchao_model("tiny").load_state_dict(state).missing_keys == []
