"""The engine with generators whose timing the test decides; the real one is behind every test of the server."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from engine_doubles import GatedGenerator, TogetherGenerator, ask, image
from helpers import wait_until
from numpy.typing import NDArray

from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import MaskRecord, PendingResult
from sam2_amg.server.engine import Engine
from sam2_amg.server.ticket import Ticket


def test_everyone_gets_their_own_answer() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=64))
    generator.gate.set()
    with ThreadPoolExecutor(32) as pool:
        values = [value for value in range(100) if value != 13]
        assert list(pool.map(lambda value: ask(engine, value), values)) == values
    assert generator.most_running == 1
    assert engine.in_flight == 0
    engine.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_reaches_its_own_caller_and_nobody_else() -> None:
    generator = GatedGenerator()
    generator.gate.set()
    engine = Engine(generator, Limits(queue_size=64))
    with ThreadPoolExecutor(8) as pool:
        futures = {value: pool.submit(ask, engine, value) for value in range(10, 20)}
    for value, future in futures.items():
        if value == 13:
            with pytest.raises(ArithmeticError, match="thirteen"):
                future.result()
        else:
            assert future.result() == value
    assert engine.is_alive
    engine.close()


def test_a_full_house_refuses_at_once() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=2))
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(ask, engine, value) for value in (1, 2)]
        wait_until(lambda: engine.in_flight == 2)
        with pytest.raises(RequestError) as refused:
            ask(engine, 3)
        assert (refused.value.status, refused.value.code) == (503, "queue_full")
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1
        generator.gate.set()
        assert [future.result() for future in accepted] == [1, 2]
    assert ask(engine, 4) == 4
    engine.close()


def test_a_deadline_is_told_and_a_waiting_job_is_dropped() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=4, request_timeout=0.2))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.running == 1)
        for future in (pool.submit(ask, engine, 2), running):
            with pytest.raises(RequestError) as late:
                future.result()
            assert (late.value.status, late.value.code) == (504, "timeout")
    generator.gate.set()
    engine.close()
    assert generator.started == 1  # the second was never begun
    assert engine.in_flight == 0


def test_closing_finishes_what_was_accepted() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=4))
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(ask, engine, value) for value in (1, 2, 3)]
        wait_until(lambda: engine.in_flight == 3 and engine.waiting == 2)
        closing = pool.submit(engine.close)
        wait_until(lambda: not engine.is_alive)
        with pytest.raises(RequestError) as refused:
            ask(engine, 4)
        assert (refused.value.status, refused.value.code) == (503, "shutting_down")
        generator.gate.set()
        assert [future.result() for future in accepted] == [1, 2, 3]
        closing.result(30)


def test_requests_that_ran_out_of_time_leave_nothing_behind() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=1, request_timeout=0.01))
    for value in range(20):
        with pytest.raises(RequestError, match="No answer within"):
            ask(engine, value)
    assert engine.waiting == 0  # their images are not kept
    assert engine.in_flight == 0
    generator.gate.set()
    engine.close()
    assert generator.started == 1


@pytest.mark.parametrize("cancel", [False, True])
def test_what_was_asked_for_in_vain_is_freed_at_once(cancel: bool) -> None:
    """Not at the next garbage collection: a photograph takes up to 200 MB, of which nobody knows any more."""
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=2, request_timeout=30))
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.started == 1)
        asked, ticket = image(2), Ticket(time.monotonic() + (30 if cancel else 0.01))
        freed = weakref.ref(asked)
        gc.disable()
        try:
            if cancel:
                ticket.cancel()
            with engine.slot(), pytest.raises(RequestError) as refused:
                engine.generate(asked, ticket)
            assert refused.value.code == ("cancelled" if cancel else "timeout")
            del asked, refused
            assert freed() is None
        finally:
            gc.enable()
            generator.gate.set()
        assert before.result(30) == 1
    engine.close()


def test_an_error_called_timeout_is_the_generators_own() -> None:
    class LateGenerator(GatedGenerator):
        def generate(self, image: NDArray[np.uint8], config: object = None) -> list[MaskRecord]:
            raise TimeoutError("a socket of the generator")

    engine = Engine(LateGenerator(), Limits())
    with pytest.raises(TimeoutError, match="a socket of the generator"):
        ask(engine, 1)
    engine.close()


def test_a_job_has_its_own_parameters_also_at_the_second_try() -> None:
    class Asked(GatedGenerator):
        def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
            asked.append(config)
            if len(asked) == 1:
                raise MemoryError
            return super().generate(image, config)

    asked: list[GeneratorConfig | None] = []
    generator, few = Asked(), GeneratorConfig(points_per_side=2)
    generator.gate.set()
    engine = Engine(generator, Limits())
    with engine.slot():
        engine.generate(image(1), None, few)
        engine.generate(image(1))
    assert asked == [few, few, None]
    engine.close()


def test_as_many_workers_as_the_generator_allows() -> None:
    generator = GatedGenerator()
    generator.workers = 2
    engine = Engine(generator, Limits(queue_size=4))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, engine, value) for value in (1, 2, 3, 4)]
        wait_until(lambda: generator.running == 2 and engine.waiting == 2)
        with pytest.raises(RequestError) as refused:
            ask(engine, 5)
        assert refused.value.retry_after == 2  # a second an image, four of them, two at a time
        closing = pool.submit(engine.close)
        generator.gate.set()
        assert [one.result(30) for one in asked] == [1, 2, 3, 4]
        closing.result(30)
    assert generator.most_running == 2
    assert not any(worker.is_alive() for worker in engine._workers)


def test_the_worker_begins_with_a_first_call() -> None:
    names: list[str] = []
    engine = Engine(None, Limits())
    engine.start_worker(lambda: names.append(threading.current_thread().name))
    assert names == ["generator"]
    assert not engine.is_ready  # nothing to answer with yet
    engine.close()


def test_whoever_begins_hears_of_failure() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    engine = Engine(None, Limits())
    with pytest.raises(ZeroDivisionError):
        engine.start_worker(fail)
    assert not engine.is_ready
    engine.close()


def test_the_next_image_begins_while_records_are_made() -> None:
    """What is left to be done without the device is done by whoever asked, and what it raises is theirs alone."""

    class HandingOver(GatedGenerator):
        def segment(self, image: NDArray[np.uint8], features: object = None, config: object = None) -> PendingResult:
            records = self.generate(image)
            return lambda: self.finish(records)

        def finish(self, records: list[MaskRecord]) -> list[MaskRecord]:
            if records[0]["area"] == 1:
                assert second.wait(30)  # of another image, which the worker has begun meanwhile
                raise ArithmeticError("one")
            second.set()
            return records

    second = threading.Event()
    generator = HandingOver()
    generator.gate.set()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, engine, 1)
        assert pool.submit(ask, engine, 2).result(30) == 2
        with pytest.raises(ArithmeticError, match="one"):
            first.result(30)
    engine.close()


def ask_while_one_is_worked_on(values: list[int]) -> tuple[list[list[int]], list[int | str]]:
    """What was encoded together, and every answer or error, where all but the first wait for the first."""
    generator = TogetherGenerator()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(len(values)) as pool:
        asked = []
        for count, value in enumerate(values):
            asked.append(pool.submit(ask, engine, value))
            wait_until(lambda count=count: generator.started == 1 and engine.waiting == count)
        generator.gate.set()
        wait(asked)
    engine.close()
    return generator.encoded, [str(one.exception()) if one.exception() else one.result() for one in asked]


def test_of_images_encoded_together_those_too_late_are_dropped() -> None:
    class HoldingGenerator(TogetherGenerator):
        def segment(
            self, image: NDArray[np.uint8], features: int | None = None, config: GeneratorConfig | None = None
        ) -> PendingResult:
            begun.append(int(image[0, 0, 0]))
            assert begun[-1] == 1 or hold.wait(30)
            return super().segment(image, features, config)

    begun: list[int] = []
    hold = threading.Event()
    generator = HoldingGenerator()
    engine = Engine(generator, Limits(request_timeout=0.5))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.running == 1)
        others = [pool.submit(ask, engine, value) for value in (2, 3, 4)]
        wait_until(lambda: engine.waiting == 3)
        generator.gate.set()
        assert first.result() == 1
        for other in others:
            assert isinstance(other.exception(), RequestError)
    hold.set()
    engine.close()
    assert sorted(generator.encoded[0]) == [2, 3, 4]
    assert len(begun) == 2  # of the three, one was being worked on when their time was over


def test_images_that_wait_are_encoded_together() -> None:
    assert ask_while_one_is_worked_on([1]) == ([], [1])  # nobody waits for company
    assert ask_while_one_is_worked_on([1, 2, 3, 4, 5]) == ([[2, 3, 4]], [1, 2, 3, 4, 5])


def test_an_image_that_fails_harms_none_of_those_beside_it() -> None:
    assert ask_while_one_is_worked_on([1, 2, 13, 4]) == ([[2, 13, 4]], [1, 2, "thirteen", 4])
    assert ask_while_one_is_worked_on([1, 2, 99]) == ([[2, 99]], [1, 2, 99])


def test_closing_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(queue_size=4, drain_timeout=0.2))
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(ask, engine, value) for value in (1, 2, 3)]
        wait_until(lambda: engine.in_flight == 3 and engine.waiting == 2)
        start = time.monotonic()
        assert engine.close() is False
        assert 0.2 <= time.monotonic() - start < 2
        for future in accepted:  # the one that is being worked on, too
            refused = future.exception(10)
            assert isinstance(refused, RequestError)
            assert (refused.status, refused.code, refused.retry_after) == (503, "shutting_down", 5)
    assert engine.in_flight == 0
    assert "--drain_timeout" in caplog.text
    generator.gate.set()
    wait_until(lambda: not any(worker.is_alive() for worker in engine._workers))
    assert generator.started == 1


def test_a_request_that_is_still_decoded_at_the_end_is_refused() -> None:
    generator = GatedGenerator()
    generator.gate.set()
    engine = Engine(generator, Limits())
    with engine.slot():
        assert engine.close(0) is False
        with pytest.raises(RequestError) as refused:
            engine.generate(image(1))
    assert refused.value.code == "shutting_down"
    assert generator.started == 0


def test_closing_tells_that_everybody_had_an_answer() -> None:
    generator = GatedGenerator()
    generator.gate.set()
    engine = Engine(generator, Limits())
    assert ask(engine, 1) == 1
    assert engine.close(5) is True
    assert not any(worker.is_alive() for worker in engine._workers)
