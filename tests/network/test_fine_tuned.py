"""Fine-tuned weights in files as trainings write them load; what does not fit is refused by name."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, SHIPPED
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sam2_amg.config import GeneratorConfig, ModelConfig
from sam2_amg.errors import StartupError
from sam2_amg.modes.load import load_generator
from sam2_amg.network.checkpoints import find_checkpoint, load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.network.state_dict import read_state
from sam2_amg.network.weights import Weights, check_weights, hash_beside

DEMO, TINY = MODEL_TYPES["demo"], MODEL_TYPES["tiny"]
State = dict[str, Tensor]
TUNED = "sam_mask_decoder.iou_token.weight"


@pytest.fixture(scope="module")
def tuned() -> State:
    """The demo model's weights, float16, after a step of training."""
    state = torch.load(SHIPPED, weights_only=True)["model"]
    return {**state, TUNED: state[TUNED] + 1}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def with_compiled_encoder(state: State) -> State:
    return {name.replace("image_encoder.", "image_encoder._orig_mod."): value for name, value in state.items()}


BESIDE = {
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5}]},
    "epoch": 7,
    "best": np.float64(0.8),
    "arguments": argparse.Namespace(lr=1e-5, device=torch.device("cpu")),
}
LAYOUTS: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "top level": (lambda state: state, ()),
    "model": (lambda state: {"model": state}, ()),
    "training's": (lambda state: {"model": state, "ema": prefixed("module.", state), **BESIDE}, ("ema", *BESIDE)),
    "Lightning's": (
        lambda state: {
            "state_dict": {**prefixed("model.", state), "criterion.weight": torch.zeros(2)},
            "model": {"name": "sam2"},
        },
        ("criterion.weight", "prefixes model."),
    ),
    "DistributedDataParallel's": (lambda state: {"model": prefixed("module.", state)}, ("prefixes module.",)),
    "torch.compile's": (
        lambda state: {"model_state_dict": prefixed("_orig_mod.module.", state)},
        ("prefixes _orig_mod.module.",),
    ),
    "of a compiled encoder": (lambda state: {"model": with_compiled_encoder(state)}, ("prefixes _orig_mod.",)),
    "beside at the top": (lambda state: {**state, "epoch": 3}, ("keys epoch",)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(tuned: State, tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str) -> None:
    make, passed_over = LAYOUTS[layout]
    torch.save(make(tuned), tmp_path / "best.pth")
    with caplog.at_level(logging.INFO):
        found = read_state(tmp_path / "best.pth", "")
    torch.testing.assert_close(found, tuned, rtol=0, atol=0)
    for text in passed_over:
        assert text in caplog.text
    assert ("passed over" in caplog.text) == bool(passed_over)


def test_the_model_has_them_in_float32(tuned: State, tmp_path: Path) -> None:
    torch.save(tuned, tmp_path / "best.pt")
    found = load_model(find_checkpoint(tmp_path / "best.pt", DEMO), DEMO, CPU).state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32}
    torch.testing.assert_close(found, tuned, rtol=0, atol=0, check_dtype=False)


def test_an_averaged_model(tuned: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {**AveragedModel(nn.Module()).state_dict(), **prefixed("module.", tuned)}
    torch.save(state, tmp_path / "ema.pt")
    with caplog.at_level(logging.INFO):
        assert read_state(tmp_path / "ema.pt", "").keys() == tuned.keys()
    assert "n_averaged" in caplog.text


def test_safetensors(tuned: State, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_file({name: value.contiguous() for name, value in prefixed("module.", tuned).items()}, path)
    found = read_state(path, "")
    path.write_bytes(b"")  # which a mapped file would show
    torch.testing.assert_close(found, tuned, rtol=0, atol=0)
    with pytest.raises(StartupError, match=r"best.safetensors is truncated, .*; save it again, or give another"):
        load_model(path, DEMO, CPU)


def refusal(state: object, path: Path, kind=DEMO) -> str:
    torch.save(state, path)
    with pytest.raises(StartupError) as refused:
        load_model(path, kind, CPU)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_does_not_fit_is_named(tuned: State, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    lacking = {name: value for name, value in tuned.items() if not name.startswith("sam_mask_decoder.")}
    first = sorted(tuned.keys() - lacking.keys())
    number = len(first)
    message = refusal(lacking, path)
    assert f"it lacks {', '.join(first[:5])} and {number - 5} more ({number} such keys); give another file" in message
    assert f"it has a wrong shape for {TUNED} (1 such keys)" in refusal({**tuned, TUNED: torch.zeros(3)}, path)
    assert "it has unknown lora.a (1 such keys)" in refusal({**tuned, "lora.a": torch.zeros(3)}, path)
    assert "is a checkpoint of MODEL_TYPE demo, not tiny; give that type" in refusal(tuned, path, TINY)
    twice = {**prefixed("module.", tuned), **prefixed("model.", tuned)}
    assert "has two tensors " in refusal(twice, path)
    assert "no state dict under 'model'" in refusal({"model": nn.Linear(2, 2)}, path)


class _Exploit:
    def __init__(self, call: Callable, *arguments: object) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


def test_no_code_beside_the_weights_runs(tuned: State, tmp_path: Path) -> None:
    """Objects of other classes are passed over, or the file is refused; either way they stay asleep."""
    path, witness = tmp_path / "best.pt", tmp_path / "executed"
    evaluated = _Exploit(eval, f"open({str(witness)!r}, 'w')")
    torch.save({"model": tuned, "epoch": evaluated}, path)
    load_model(path, DEMO, CPU)
    assert "no state dict" in refusal({"model": evaluated}, path)
    for exploit in (_Exploit(Path.touch, witness), _Exploit(os.system, f"touch {witness}")):
        message = refusal({"model": tuned, "epoch": exploit}, path)
        assert "holds objects that could run code, and is not loaded; save the weights alone" in message
    torch.save({"model": tuned, "epoch": _Exploit(eval, "1")}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(StartupError, match="holds objects that could run code"):
        load_model(path, DEMO, CPU)
    path.write_bytes(pickle.dumps({"model": tuned, "epoch": _Exploit(Path.touch, witness)}))
    with pytest.raises(StartupError):
        load_model(path, DEMO, CPU)
    assert not witness.exists()
    assert not [entry for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)]


def test_a_server_tells_whose_weights_they_are(tuned: State, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save(tuned, path)
    told: list[Weights] = []
    load_generator(ModelConfig(path, "demo"), GeneratorConfig(), lambda _: None, told.append)
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told == [Weights("best.pt", own, official=False)]
    Path(f"{path}.sha256").write_text("0" * 64)
    with pytest.raises(StartupError, match="is damaged or was changed"):
        check_weights(path, DEMO)


def test_a_renamed_official_file_is_official(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(SHIPPED.read_bytes())
    assert check_weights(path, DEMO) == Weights("renamed.pt", hash_beside(SHIPPED), official=True)
    path.write_bytes(b"fine-tuned")
    with caplog.at_level(logging.INFO):
        assert check_weights(path, TINY).official is False
    assert [record.levelno for record in caplog.records] == [logging.INFO]
