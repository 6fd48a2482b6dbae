"""A lack of memory is told from other errors, and a second try takes less memory and finds the same masks."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import CPU, ROOT, assert_all_but_equal, photograph
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.device_errors import is_out_of_memory, require_device
from sam2_amg.pipeline.generator import MaskGenerator

CUDA = torch.device("cuda")


def error_of(action: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        action()
    return caught.value


def test_the_allocators_own_error_is_a_lack_of_memory() -> None:
    error = error_of(lambda: torch.empty(1 << 50))
    assert type(error) is RuntimeError  # not a type of its own
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (torch.AcceleratorError("CUDA error: out of memory", 2), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered", 710), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: unspecified launch failure"), False),
        (ValueError("out of memory"), False),
        (SystemExit(3), False),
    ],
    ids=str,
)
def test_what_is_a_lack_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_device_that_works_passes() -> None:
    require_device(CPU)


def points_at_a_time(generator: Any) -> list[int]:
    """A list that tells, from now on, how many points each call of the network's decoder takes."""
    seen: list[int] = []
    if not isinstance(generator, MaskGenerator):
        generator.model.sam_mask_decoder.register_forward_hook(lambda _m, _i, out: seen.append(len(out[0])))
        return seen
    decoder = generator.stages.decoder
    attend = decoder.attend

    def noting(prepared: Any, points: torch.Tensor) -> Any:
        seen.append(len(points))
        return attend(prepared, points)

    decoder.attend = noting  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("mode", [Mode.BASELINE, Mode.AO])
def test_half_the_points_at_a_time_find_the_same_masks(
    small_model: SAM2Base, demo_config: GeneratorConfig, mode: Mode
) -> None:
    config = replace(demo_config, points_per_side=4, points_per_batch=8, stability_score_thresh=0.6)
    generator = build_generator(deepcopy(small_model), mode, config, CPU)
    image = photograph("groceries")
    seen = points_at_a_time(generator)
    expected = generator.generate(image)
    assert len(expected) >= 3  # there is something to compare
    assert seen == [8, 8]
    assert_all_but_equal(generator.segment_with_less_memory(image)(), expected)
    assert seen[2:] == [4, 4, 4, 4]
    assert generator.generate(image) == expected
    assert seen[6:] == [8, 8]  # the configured number is back


def test_a_single_point_is_not_halved(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    config = replace(demo_config, points_per_side=2, points_per_batch=1)
    for mode in (Mode.BASELINE, Mode.AO):
        generator = build_generator(small_model, mode, config, CPU)
        image = photograph("groceries")
        assert generator.segment_with_less_memory(image)() == generator.generate(image)


def test_compiled_points_stay(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    """A network that takes one number of points gains nothing from fewer."""
    generator = build_generator(small_model, Mode.AO, replace(demo_config, points_per_side=4), CPU)
    assert isinstance(generator, MaskGenerator)
    generator.stages = replace(generator.stages, fixed_points=True)
    seen = points_at_a_time(generator)
    generator.segment_with_less_memory(photograph("groceries"))
    assert seen == [8, 8]


@pytest.mark.gpu
def test_a_full_gpu_is_a_lack_of_memory_and_stays_usable(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    generator = build_generator(deepcopy(demo_model).to(CUDA), Mode.AO, demo_config, CUDA)
    image = photograph("dog")
    expected = generator.generate(image)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_allocated() / total)  # not a byte more
    try:
        assert is_out_of_memory(error_of(lambda: generator.segment(image)))
        generator.require_device()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_all_but_equal(generator.segment_with_less_memory(image)(), expected)


@pytest.mark.gpu
def test_after_a_device_side_assert_the_device_is_useless() -> None:
    """In a process of its own, which has no use for its GPU afterwards."""
    program = (
        "import os, torch; from sam2_amg.pipeline.device_errors import is_out_of_memory, require_device\n"
        "cuda = torch.device('cuda'); require_device(cuda)\n"
        "try: torch.zeros(3, device=cuda)[torch.tensor([7], device=cuda)].cpu()\n"
        "except RuntimeError as error: assert 'device-side assert' in str(error) and not is_out_of_memory(error)\n"
        "else: raise SystemExit('nothing was raised')\n"
        "try: require_device(cuda)\n"
        "except RuntimeError: os._exit(70)\n"
        "raise SystemExit('the device passes')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert answer.returncode == 70, answer.stderr
