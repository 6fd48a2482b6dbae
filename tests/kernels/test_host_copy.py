"""Results on their way to the host."""

from __future__ import annotations

import pytest
import torch

from sam2_amg.kernels.host_copy import begin_copy


def test_what_is_on_the_host_stays_there() -> None:
    x = torch.arange(3)
    assert begin_copy(x)() is x


@pytest.mark.gpu
def test_a_copy_is_what_the_stream_had_then() -> None:
    numbers = torch.arange(1 << 20, device="cuda").view(1 << 10, 1 << 10)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        torch.cuda._sleep(10_000_000)  # cycles
        strided, empty = begin_copy(numbers[3:, 5]), begin_copy(numbers.new_empty(0, 9))
        numbers.zero_()
        assert torch.equal(strided(), torch.arange(3, 1 << 10) * (1 << 10) + 5)
        assert strided().is_pinned()
        assert empty().shape == (0, 9)
