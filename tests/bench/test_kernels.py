"""What `python -m bench.kernels` tries."""

from __future__ import annotations

from dataclasses import fields

from helpers import CPU

from bench.harness.weights import seeded_model
from sam2_amg.kernels.launch_candidates import CANDIDATES
from sam2_amg.kernels.launch_configs import LaunchConfigs
from sam2_amg.tuning.trials import all_trials


def test_every_kernel_that_is_tuned_has_launch_configurations_to_try() -> None:
    decoder = seeded_model("tiny", CPU).sam_mask_decoder
    trials = all_trials(CPU, decoder, {True: 1, False: 1})
    assert {trial.config_name for trial in trials if trial.config_name} == CANDIDATES.keys()
    assert CANDIDATES.keys() <= {field.name for field in fields(LaunchConfigs)}
