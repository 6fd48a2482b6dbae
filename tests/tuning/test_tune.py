"""Which of the candidates `tune` chooses; on a GPU, that a server with its table finds the same."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import build_compiled, photograph
from torch import Tensor
from torch._dynamo.utils import counters
from triton.runtime.errors import OutOfResources

from sam2_amg.cli import tune as command
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.errors import StartupError
from sam2_amg.kernels.launch_candidates import CANDIDATES
from sam2_amg.kernels.launch_configs import HOPPER, SAFE, LaunchConfig, launch_configs, using_launch_configs
from sam2_amg.kernels.launch_tables import read_table, write_table
from sam2_amg.tuning.trials import Trial
from sam2_amg.tuning.tune import Chosen, choose, compile_ahead

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ONE, OTHER = CANDIDATES["read"][5], CANDIDATES["read"][6]


class Kernel:
    """Computes 2, but goes wrong or does not run with some configurations. Takes the milliseconds that are given for
    its configuration, else 5."""

    def __init__(self, times: Sequence[tuple[LaunchConfig, float]] = (), **faults: Sequence[LaunchConfig]) -> None:
        self.times, self.faults = times, faults

    @property
    def config(self) -> LaunchConfig:
        return launch_configs(CPU).read

    def __call__(self) -> Tensor:
        if self.config in self.faults.get("too_large", ()):
            raise OutOfResources(300 << 10, 227 << 10, "shared memory")
        return torch.full((3,), 2.001 if self.config in self.faults.get("wrong", ()) else 2.0)

    def milliseconds(self) -> float:
        return next((ms for config, ms in self.times if config == self.config), 5.0)


def chosen(*trials: tuple[Kernel, int]) -> list[Chosen]:
    """What is chosen for trials of these kernels with these weights."""
    every = (Trial("kernel", "form", kernel, "read", weight=weight) for kernel, weight in trials)
    return choose(every, HOPPER, lambda kernel: kernel.milliseconds())


def test_the_fastest_of_all_trials_by_their_weights_is_chosen() -> None:
    often, seldom = Kernel([(ONE, 1.0), (OTHER, 2.0)]), Kernel([(ONE, 2.0), (OTHER, 1.0)])
    assert chosen((often, 3), (seldom, 1)) == [Chosen("read", ONE, 5.0, 20.0)]
    assert chosen((often, 1), (seldom, 3)) == [Chosen("read", OTHER, 5.0, 20.0)]


def test_where_nothing_is_faster_all_stays() -> None:
    assert chosen((Kernel([(HOPPER.read, 4.0)]), 1)) == [Chosen("read", HOPPER.read, 4.0, 4.0)]


def test_what_computes_something_else_is_left_out_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    times = [(ONE, 1.0), (OTHER, 2.0)]
    assert chosen((Kernel(times, wrong=[ONE]), 1)) == [Chosen("read", OTHER, 2.0, 5.0)]
    assert "computes something else on this GPU" in caplog.text


def test_what_does_not_run_is_left_out() -> None:
    """Also where another trial of the kernel runs."""
    times = [(ONE, 1.0), (OTHER, 2.0)]
    found = chosen((Kernel(times, too_large=[ONE]), 1), (Kernel(times), 1))
    assert found == [Chosen("read", OTHER, 4.0, 10.0)]


def test_a_kernel_that_runs_in_no_form_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen((Kernel(too_large=[SAFE.read]), 1)) == []
    assert "read does not run on this GPU" in caplog.text


def test_other_errors_are_not_taken_for_a_candidates() -> None:
    def broken() -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        choose(iter([Trial("kernel", "form", broken, "read")]), HOPPER, lambda _: 1.0)


def test_every_candidate_can_stand_in_a_table(tmp_path: Path) -> None:
    for name, candidates in CANDIDATES.items():
        for candidate in candidates:
            write_table(tmp_path / "table", "a GPU", replace(SAFE, **{name: candidate}))
            assert getattr(read_table(tmp_path / "table"), name) == candidate


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_it_needs_a_gpu() -> None:
    with pytest.raises(StartupError, match="tune measures a CUDA GPU, and there is none here"):
        command.main([])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_candidates_are_compiled_in_processes_of_their_own() -> None:
    """Here they end at the first call of CUDA, which is told of, and no process is left."""
    with pytest.raises(BrokenProcessPool):
        compile_ahead(CUDA)
    assert multiprocessing.active_children() == []


@pytest.mark.gpu
@pytest.mark.slow
def test_with_a_table_a_server_finds_the_same(
    demo_config: GeneratorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["--compile_cache", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("launch-configs-*.json")
    table = read_table(path)
    image = photograph("dog")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))  # both, one after the other
    for mode in (Mode.FAST, Mode.FURIOUS):
        answers = []
        for configs in (SAFE, table):
            torch._dynamo.reset()
            hits = counters["aot_autograd"]["autograd_cache_hit"]
            with using_launch_configs(configs):
                answers.append(build_compiled(mode, demo_config).generate(image))
            assert counters["aot_autograd"]["autograd_cache_hit"] == hits
        assert len(answers[0]) == len(answers[1]) >= 10
