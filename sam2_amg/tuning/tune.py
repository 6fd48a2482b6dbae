"""Times the candidates of every kernel on a GPU, and chooses the fastest of those that compute the same."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process

import torch
from torch import Tensor
from tqdm import tqdm
from triton.errors import TritonError
from triton.testing import do_bench

from sam2_amg.demo import DEMO_DIR
from sam2_amg.kernels.launch_candidates import CANDIDATES
from sam2_amg.kernels.launch_configs import SAFE, LaunchConfig, LaunchConfigs, using_launch_configs
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.tuning.trials import Trial, all_trials

logger = logging.getLogger(__name__)
_POINTS = {True: 256, False: 512}  # at a time, by `fp16x3`: their image tokens take 1.1 GB
_AT_ONCE = 32  # points whose results are compared
_FEW = 16  # points for compiling: as many kernels, in little memory
_MOST_PROCESSES = 16
_PROCESS_BYTES = 2 << 30  # of the GPU's memory, more than each of them takes


@dataclass(frozen=True)
class Chosen:
    """A kernel's fastest configuration, the milliseconds of its trials by their weights, and those of the configuration
    before."""

    config_name: str
    config: LaunchConfig
    milliseconds: float
    before: float


def trials_to_tune(device: torch.device, points: Mapping[bool, int]) -> Iterator[Trial]:
    """Calls of every kernel in the forms that modes use. `points` are at a time, by `fp16x3`."""
    kind = MODEL_TYPES["demo"]  # whose decoder is as large as that of any other
    decoder = load_model(DEMO_DIR / kind.file, kind, device).sam_mask_decoder
    return (trial for trial in all_trials(device, decoder, points) if trial.config_name is not None)


def tune(device: torch.device, before: LaunchConfigs) -> list[Chosen]:
    """Measures all candidates on a GPU; a choice for each kernel that runs there, which may be that of `before`."""
    compile_ahead(device, torch.cuda.mem_get_info(device)[0] // _PROCESS_BYTES)
    with torch.inference_mode():
        return choose(trials_to_tune(device, _POINTS), before, _milliseconds)


def choose(
    trials: Iterator[Trial], before: LaunchConfigs, milliseconds_of: Callable[[Callable[[], Tensor]], float]
) -> list[Chosen]:
    """The fastest configuration of each kernel over its trials, by their weights. `milliseconds_of` times a call.

    What a candidate computes is compared with the safe configuration's result: those that differ are left out.
    """
    totals: dict[str, dict[int, float]] = {}  # by kernel, then by candidate: 0 is the configuration of `before`
    for trial in tqdm(trials, desc="measuring", unit="kernel", disable=None):
        assert trial.config_name is not None
        found = _times_of(trial, _candidates(trial.config_name, before), milliseconds_of)
        so_far = totals.setdefault(trial.config_name, dict.fromkeys(found, 0.0))
        totals[trial.config_name] = {n: so_far[n] + trial.weight * found[n] for n in found if n in so_far}
    chosen = []
    for name, sums in totals.items():
        if 0 not in sums:
            logger.warning("%s does not run on this GPU: the modes that need it are refused here", name)
            continue
        fastest = min(sums, key=sums.__getitem__)
        chosen.append(Chosen(name, _candidates(name, before)[fastest], sums[fastest], sums[0]))
    return chosen


def _candidates(name: str, before: LaunchConfigs) -> list[LaunchConfig]:
    first: LaunchConfig = getattr(before, name)
    return [first, *(config for config in CANDIDATES[name] if config != first)]


def _times_of(
    trial: Trial, candidates: Sequence[LaunchConfig], milliseconds_of: Callable[[Callable[[], Tensor]], float]
) -> dict[int, float]:
    """Milliseconds by the number of each candidate that runs on this GPU and computes the same."""
    assert trial.config_name is not None
    result = trial.result or trial.run
    expected = _attempt(trial.config_name, getattr(SAFE, trial.config_name), result)
    if expected is None:
        return {}
    found: dict[int, float] = {}
    for number, config in enumerate(candidates):
        answer = _attempt(trial.config_name, config, result)
        if answer is None:
            continue
        if _agrees(answer, expected, trial.tolerance):
            with _using(trial.config_name, config):
                found[number] = milliseconds_of(trial.run)
        else:
            logger.warning("%s with %s computes something else on this GPU", trial.config_name, dict(config))
    return found


def _using(name: str, config: LaunchConfig) -> AbstractContextManager[None]:
    return using_launch_configs(replace(SAFE, **{name: config}))


def _attempt(name: str, config: LaunchConfig, call: Callable[[], Tensor]) -> Tensor | None:
    """What a call gives with a configuration; None where that alone makes it fail: too much shared memory, too many
    registers, or what Triton's compiler cannot lay out."""
    try:
        with _using(name, config):
            return call()
    except (TritonError, RuntimeError) as error:
        if not (isinstance(error, TritonError) or "PassManager" in str(error)):
            raise
        logger.debug("%s with %s does not run: %s", name, config, error)
        return None


def _agrees(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    if not expected.is_floating_point():  # scores as integers: all but a rounding
        return bool((found.int() - expected.int()).abs().max() <= 1)
    pairs = list(zip(found.split(_AT_ONCE), expected.split(_AT_ONCE), strict=True))  # copies take as much memory
    difference = sum((one.float() - twin.float()).square().sum().item() for one, twin in pairs)
    return difference <= tolerance**2 * sum(twin.float().square().sum().item() for _, twin in pairs)


def _milliseconds(run: Callable[[], Tensor]) -> float:
    """A GPU that was idle while a candidate compiled needs tens of milliseconds to reach its clock rate."""
    return float(do_bench(run, warmup=60, rep=20, return_mode="median"))


def compile_ahead(device: torch.device, most: int = _MOST_PROCESSES) -> None:
    """Compiles all candidates into Triton's cache, in up to `most` processes: most of the time goes there."""
    tasks = [(name, number) for name, configs in CANDIDATES.items() for number in range(len(configs))]
    processes = max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), most))
    with ProcessPoolExecutor(processes, get_context("spawn"), _prepare, (str(device),)) as pool:
        list(tqdm(pool.map(_compile, tasks), total=len(tasks), desc="compiling", unit="kernel", disable=None))


_few: list[Trial] = []  # of a process that compiles


def _prepare(device: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _few.extend(trials_to_tune(torch.device(device), dict.fromkeys(_POINTS, _FEW)))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compile(task: tuple[str, int]) -> None:
    name, number = task
    with torch.inference_mode():
        for trial in _few:
            if trial.config_name == name:
                _attempt(name, CANDIDATES[name][number], trial.run)
