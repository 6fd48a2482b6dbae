"""Tables of launch configurations: written, read, refused, and found where a server looks for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.runtime.errors import OutOfResources

from sam2_amg.errors import StartupError
from sam2_amg.kernels import launch_configs, launch_tables
from sam2_amg.kernels.launch_configs import HOPPER, SAFE
from sam2_amg.kernels.launch_tables import VARIABLE, read_table, table_name, use_table, write_table
from sam2_amg.modes.load import keep_compiled
from sam2_amg.modes.warmup import memory_errors

A100, CUDA = "NVIDIA A100-SXM4-80GB", torch.device("cuda")
TUNED = replace(SAFE, read={"BLOCK": 32, "PARTS": 8, "num_warps": 8, "num_stages": 3})


@pytest.mark.parametrize("configs", [HOPPER, SAFE, TUNED])
def test_what_is_written_is_read(configs: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / table_name(A100)
    write_table(path, A100, configs)
    assert read_table(path) == configs
    assert [file.name for file in path.parent.iterdir()] == ["launch-configs-nvidia-a100-sxm4-80gb.json"]


def changed(**values: Any) -> dict[str, Any]:
    """A table whose configuration of `read` has other values; None leaves one out."""
    table = asdict(SAFE)
    table["read"] = {name: value for name, value in {**table["read"], **values}.items() if value is not None}
    return {"gpu": A100, "triton": triton.__version__, "launch_configs": table}


BAD = {
    "no JSON": ("{", "Expecting property name"),
    "a list": ("[]", "list indices"),
    "another file": ('{"a": 1}', "launch_configs"),
    "a kernel less": (json.dumps({"launch_configs": {"read": {}}}), "the kernels of this version"),
    "a value less": (json.dumps(changed(PARTS=None)), "read takes BLOCK, PARTS, num_warps, num_stages"),
    "a value more": (json.dumps(changed(num_ctas=2)), "read takes"),
    "no number": (json.dumps(changed(BLOCK="32")), "BLOCK of read must be a power of two up to 256, not '32'"),
    "a truth": (json.dumps(changed(PARTS=True)), "PARTS of read"),
    "no power of two": (json.dumps(changed(num_warps=6)), "num_warps of read must be a power of two up to 32, not 6"),
    "a small tile": (json.dumps(changed(BLOCK=8)), "BLOCK of read must be 16 or more, not 8"),
    "a large tile": (json.dumps(changed(BLOCK=512)), "BLOCK of read must be a power of two up to 256"),
    "more than the tokens": (json.dumps(changed(BLOCK=128, PARTS=8)), "BLOCK times PARTS of read must be at most 512"),
    "few parts": (json.dumps(changed(PARTS=2)), "PARTS of read must be 4 or more"),
    "another Triton": (json.dumps({**changed(), "triton": "3.5.1"}), "it was measured with Triton 3.5.1, this is 3."),
    "no Triton": (json.dumps({"launch_configs": asdict(SAFE)}), "it was measured with Triton None"),
    "brackets": ("[" * 100_000, "recursion"),
    "no stage": (json.dumps(changed(num_stages=0)), "num_stages of read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    text, reason = BAD[name]
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(StartupError, match="is no table of launch configurations of this version") as caught:
        read_table(path)
    assert reason in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"table\.json cannot be read \(No such file"):
        read_table(tmp_path / "table.json")


@pytest.fixture
def an_a100(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """What torch says of a GPU that is not here. The user's cache folder, without a table."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: A100)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(launch_configs, "_tuned", None)
    monkeypatch.setattr(launch_tables, "_in_use", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for name in (VARIABLE, "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")  # and what it is now comes back
    return tmp_path / "user" / "sam2-amg"


def test_the_compile_cache_is_looked_into_first(an_a100: Path, tmp_path: Path) -> None:
    said: list[str] = []
    write_table(an_a100 / table_name(A100), A100, replace(SAFE, read=HOPPER.read))
    keep_compiled(tmp_path / "compiled")
    use_table(CUDA, said.append)  # the user's, where the compile cache has none
    assert launch_configs.launch_configs(CUDA).read == HOPPER.read
    write_table(tmp_path / "compiled" / table_name(A100), A100, TUNED)
    use_table(CUDA, said.append)
    assert launch_configs.launch_configs(CUDA) == TUNED
    assert [line.split("/")[-2] for line in said] == ["sam2-amg", "compiled"]


def test_a_kernel_that_does_not_fit_says_which_table_it_is_of(an_a100: Path) -> None:
    write_table(path := an_a100 / table_name(A100), A100, TUNED)
    use_table(CUDA, lambda _: None)
    said = f"Hardware limit: 102400\\); delete {path}, or measure again: .*tune$"
    with pytest.raises(StartupError, match=said), memory_errors("--points_per_batch"):
        raise OutOfResources(300 << 10, 100 << 10, "shared memory")


def test_a_gpu_without_a_table_is_told_of(an_a100: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        use_table(CUDA, lambda _: None)
    assert launch_configs.launch_configs(CUDA) == SAFE
    assert f"no launch configurations are known for {A100}; for faster kernels: " in caplog.text
    assert "tune" in caplog.text


def test_an_old_table_is_told_of_and_left_out(an_a100: Path, caplog: pytest.LogCaptureFixture) -> None:
    an_a100.mkdir(parents=True)
    (an_a100 / table_name(A100)).write_text("{}")
    with caplog.at_level(logging.WARNING):
        use_table(CUDA, lambda _: None)
    assert launch_configs.launch_configs(CUDA) == SAFE
    assert "is no table of launch configurations of this version" in caplog.text


def test_a_measured_gpu_needs_none(
    an_a100: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    use_table(CUDA, lambda _: None)
    assert launch_configs.launch_configs(CUDA) == HOPPER
    assert caplog.text == ""
