"""Images that are decoded and segmented in this process: what goes wrong with one harms no other, and nothing hangs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from decoder_processes import processes
from helpers import drawn_image, png, wait_until
from numpy.typing import NDArray

from sam2_amg.answers.filters import Filters
from sam2_amg.batch.items import Item, Problem, Result
from sam2_amg.batch.local import LocalWork
from sam2_amg.batch.work import Finished
from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import StartupError
from sam2_amg.pipeline.base import Generator, MaskRecord


class Nothing(Generator):
    """Finds no masks, and fails for images whose height is that of a fault."""

    def __init__(self, workers: int = 2, batch_size: int = 3) -> None:
        self.config = GeneratorConfig()
        self.workers, self.batch_size = workers, batch_size
        self.faults: dict[int, Exception] = {}
        self.is_broken = False

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """No masks."""
        if image.shape[0] in self.faults:
            raise self.faults[image.shape[0]]
        return []

    def require_device(self) -> None:
        """Raises if the device is broken."""
        if self.is_broken:
            raise RuntimeError("device-side assert")


def finish(result: Result) -> Finished:
    """A result as it is; one that is 7 pixels high cannot be written."""
    if result.size == (7, 9) and not isinstance(result.found, Problem):
        raise ValueError("seven")
    return Finished(result, 0, result.found if isinstance(result.found, Problem) else None, {})


@pytest.fixture
def make(decoders: DecoderPool) -> Iterator[Callable[[Generator], LocalWork]]:
    """Makes work, which ends with the test."""
    made: list[LocalWork] = []

    def start(generator: Generator) -> LocalWork:
        made.append(LocalWork(generator, decoders, torch.device("cpu"), Filters(), None, finish, False))
        return made[-1]

    yield start
    for work in made:
        work.close()


def images(*heights: int) -> list[Item]:
    return [Item(str(height), png(drawn_image(height, 9))) for height in heights]


def test_a_fault_of_one_harms_no_other(make: Callable[[Generator], LocalWork]) -> None:
    generator = Nothing()
    generator.faults = {5: ValueError("five"), 6: MemoryError()}
    group = [*images(4, 5), Item("broken", b"\x89PNG"), *images(6, 7, 8)]
    group.append(Item("missing", Problem("unreadable", "it is not there")))
    results = [future.result(30).encoded for future in make(generator).start(group)]
    codes = [result.found.code if isinstance(result.found, Problem) else None for result in results]
    assert [result.name for result in results] == ["4", "5", "broken", "6", "7", "8", "missing"]
    assert codes[:2] == [None, "internal_error"]
    assert codes[2] in ("truncated_image", "not_an_image", "unsupported_format")
    assert codes[3:] == ["out_of_memory", "internal_error", None, "unreadable"]


def test_a_decoder_that_was_stopped_costs_no_image() -> None:
    """As a scheduler suspends a job: it is late, and is replaced. One that was killed is, too."""
    with DecoderPool(Limits(decoders=1, decode_timeout=1)) as decoders:
        decoders.warm_up(images(3)[0].data)
        work = LocalWork(Nothing(), decoders, torch.device("cpu"), Filters(), None, finish, False)
        (process,) = processes(decoders)
        os.kill(process, signal.SIGSTOP)
        (finished,) = work.start(images(4))
        assert finished.result(timeout=30).problem is None
        assert processes(decoders) != [process]
        work.close()


def test_a_broken_device_ends_the_job(make: Callable[[Generator], LocalWork]) -> None:
    generator = Nothing()
    generator.faults, generator.is_broken = {5: ValueError("five")}, True
    futures = make(generator).start(images(4, 5, 6))
    with pytest.raises(StartupError, match=r"device-side assert\); start the job again"):
        [future.result(30) for future in futures]


def test_a_first_image_that_fails_does_not_hang(make: Callable[[Generator], LocalWork]) -> None:
    generator = Nothing(workers=3)
    generator.faults = {534: MemoryError("none is left")}
    with pytest.raises(MemoryError, match="none is left"):
        make(generator).warm_up()


class Slow(Nothing):
    """Waits before each image until it may go on."""

    def __init__(self) -> None:
        super().__init__(workers=1, batch_size=1)
        self.may_go_on = threading.Event()

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        """No masks, later."""
        assert self.may_go_on.wait(30)
        return super().generate(image)


def test_pixels_that_wait_are_bounded(make: Callable[[Generator], LocalWork]) -> None:
    """Two images have more than may wait, so that those after them are not begun until they are finished."""
    generator = Slow()
    work = make(generator)
    work._ahead.most_bytes = 1500
    futures: list[Future[Finished]] = []
    begin = threading.Thread(target=lambda: [futures.extend(work.start(images(40))) for _ in range(10)])
    begin.start()
    wait_until(lambda: work._ahead._bytes > 1500)
    begin.join(0.5)
    assert len(futures) <= 4
    generator.may_go_on.set()
    begin.join(30)
    assert [future.result(30).encoded.size for future in futures] == [(40, 9)] * 10
    assert work._ahead._bytes == 0


def test_images_that_fail_hold_nothing(make: Callable[[Generator], LocalWork]) -> None:
    generator = Nothing()
    generator.faults, generator.is_broken = {5: ValueError("five")}, True
    work = make(generator)
    work._ahead.most_bytes = 0
    for _ in range(3):
        futures = work.start([*images(4, 5, 6), Item("broken", b"\x89PNG")])
        errors = [future.exception(30) for future in futures]
        assert isinstance(errors[1], StartupError)
    wait_until(lambda: work._ahead._decoding == 0)
    assert work._ahead._bytes == 0


def test_closing_ends_all_threads(make: Callable[[Generator], LocalWork]) -> None:
    """Also those that wait for images whose decoding has not begun."""
    before = threading.active_count()
    work = make(Nothing(workers=1))
    for _ in range(20):
        work.start(images(40, 41, 42))
    work.close()
    for pool in (work._decoding, work._segmenting, work._finishing):
        pool.shutdown(wait=True)
    assert threading.active_count() <= before
