"""The bytes that all requests share."""

from __future__ import annotations

import threading
import time

import pytest
from helpers import wait_until

from sam2_amg.decoding.budget import Budget, Lease
from sam2_amg.errors import RequestError

MIB = 1 << 20


def refusal(budget: Budget, count: int, seconds: float = 0.05) -> RequestError:
    with pytest.raises(RequestError) as caught:
        budget.take(count, time.monotonic() + seconds)
    return caught.value


def test_what_is_taken_is_not_there_for_others_until_it_is_given_back() -> None:
    budget = Budget(100 * MIB, lanes=2)
    first = budget.take(60 * MIB, time.monotonic())
    assert budget.taken == 60 * MIB
    error = refusal(budget, 60 * MIB)
    assert (error.status, error.code, error.retry_after) == (503, "decoders_busy", 5)
    assert "--max_decoded_mib" in error.message
    first.keep(20 * MIB)
    assert budget.try_take(60 * MIB) is not None
    first.close()
    first.close()
    assert budget.taken == 60 * MIB


def test_more_than_there_is_will_never_be_there() -> None:
    error = refusal(Budget(100 * MIB, lanes=1), 100 * MIB + 1)
    assert (error.status, error.code, error.retry_after) == (413, "too_much_memory", None)
    assert "needs 101 MiB, over the limit of 100 MiB" in error.message


def test_one_waits_for_bytes() -> None:
    budget = Budget(100 * MIB, lanes=2)
    first = budget.take(60 * MIB, time.monotonic())
    leases: list[Lease] = []
    waiting = threading.Thread(target=lambda: leases.append(budget.take(60 * MIB, time.monotonic() + 30)))
    waiting.start()
    time.sleep(0.05)
    assert not leases
    first.close()
    waiting.join(30)
    assert budget.taken == 60 * MIB


def test_large_images_leave_room_for_small_ones() -> None:
    budget = Budget(800 * MIB, lanes=3)
    alone = budget.try_take(800 * MIB)  # one alone may take all
    assert alone is not None
    alone.close()
    assert budget.try_take(400 * MIB)
    assert budget.try_take(301 * MIB) is None
    assert budget.try_take(300 * MIB)
    assert budget.try_take(99 * MIB)


def test_few_large_images_are_decoded_at_a_time() -> None:
    budget = Budget(800 * MIB, lanes=1)
    first = budget.try_take(200 * MIB)
    assert first is not None
    assert budget.try_take(200 * MIB) is None
    assert budget.try_take(50 * MIB)
    first.keep(200 * MIB)  # decoded
    assert budget.try_take(200 * MIB)


def test_many_threads_never_take_more_than_there_is() -> None:
    budget, most = Budget(10, lanes=3), [0]

    def take() -> None:
        for count in (1, 3, 5, 7):
            lease = budget.take(count, time.monotonic() + 30)
            most[0] = max(most[0], budget.taken)
            lease.keep(1)
            lease.close()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert 0 < most[0] <= 10
    assert budget.taken == 0
