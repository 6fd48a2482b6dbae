"""Tickets: states, cancelling and deadlines, alone and within the engine."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_doubles import GatedGenerator, TogetherGenerator, ask, image
from helpers import wait_until

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError
from sam2_amg.server.engine import Engine
from sam2_amg.server.ticket import Ticket, Tickets


def over(request_id: str, seconds_ago: float = 0.0) -> Ticket:
    ticket = Ticket(request_id=request_id)
    ticket.enter("done")
    ticket.times["done"] -= seconds_ago
    return ticket


def test_states_have_times_and_the_last_is_final() -> None:
    ticket = Ticket()
    for state in ("decoding", "queued", "segmenting", "rendering", "done"):
        assert not ticket.is_over
        assert ticket.enter(state)
    assert ticket.is_over
    assert list(ticket.times) == ["received", "decoding", "queued", "segmenting", "rendering", "done"]
    assert sorted(ticket.times.values()) == list(ticket.times.values())
    assert not ticket.cancel()
    assert not ticket.enter("queued")
    assert (ticket.state, ticket.cancelled.is_set()) == ("done", False)


def test_cancelling_tells_those_who_want_to_know_once() -> None:
    ticket, calls = Ticket(), []
    with ticket.calling_on_cancel(lambda: calls.append("early")):
        assert ticket.cancel()
        assert not ticket.cancel()
    with ticket.calling_on_cancel(lambda: calls.append("late")):
        pass
    assert calls == ["early", "late"]
    assert ticket.cancelled.is_set()
    assert ticket.state == "cancelled"
    other = Ticket()
    with other.calling_on_cancel(lambda: calls.append("never")):
        pass
    other.cancel()
    assert calls == ["early", "late"]


def test_what_remains() -> None:
    assert Ticket().remaining == float("inf")
    assert 4 < Ticket(time.monotonic() + 5).remaining <= 5
    assert Ticket(time.monotonic() - 1).remaining == 0
    assert len({Ticket().request_id for _ in range(100)}) == 100


def test_the_registry_finds_and_cancels() -> None:
    tickets = Tickets()
    ticket = Ticket(request_id="a")
    assert tickets.add(ticket)
    assert not tickets.add(Ticket(request_id="a"))  # two requests in progress do not share an id
    assert tickets.get("a") is ticket
    assert tickets.get("b") is None
    assert tickets.cancel("b") is None
    assert tickets.cancel("a") is ticket
    assert ticket.cancelled.is_set()
    assert tickets.add(again := Ticket(request_id="a"))
    assert tickets.get("a") is again
    assert len(tickets) == 1


def test_the_registry_is_bounded() -> None:
    tickets = Tickets(most=3, keep=60)
    running = Ticket(request_id="running")
    for ticket in (running, over("first"), over("second"), over("third")):
        tickets.add(ticket)
    assert len(tickets) == 3
    assert tickets.get("first") is None
    assert tickets.get("running") is running  # older, and not over
    full = Tickets(most=2)
    for name in "abc":
        full.add(Ticket(request_id=name))
    assert [full.get(name) is None for name in "abc"] == [True, False, False]


def test_the_registry_forgets_what_is_long_over() -> None:
    tickets = Tickets(keep=60)
    for ticket in (over("old", 61), over("new", 59)):
        tickets.add(ticket)
    assert tickets.get("old") is None
    assert tickets.get("new") is not None
    assert len(tickets) == 1


def test_the_registry_in_many_threads() -> None:
    tickets = Tickets(most=50)

    def work(number: int) -> None:
        for i in range(200):
            tickets.add(Ticket(request_id=f"{number}-{i}"))
            tickets.cancel(f"{number}-{i}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(tickets) == 50


def error_of(engine: Engine, value: int, ticket: Ticket) -> tuple[int, str]:
    with pytest.raises(RequestError) as refused, engine.slot():
        engine.generate(image(value), ticket)
    return refused.value.status, refused.value.code


def test_a_ticket_says_how_far_its_image_is() -> None:
    generator, ticket = GatedGenerator(), Ticket()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.running == 1)
        second = pool.submit(engine.generate, image(2), ticket)
        wait_until(lambda: engine.waiting == 1)
        third = pool.submit(engine.generate, image(3), other := Ticket())
        wait_until(lambda: engine.waiting == 2)
        assert (ticket.state, engine.place_of(ticket.request_id)) == ("queued", 0)
        assert (other.state, engine.place_of(other.request_id)) == ("queued", 1)
        assert engine.place_of("nobody") is None
        generator.gate.set()
        for answer in (first, second, third):
            answer.result(30)
    assert engine.place_of(ticket.request_id) is None
    assert list(ticket.times) == ["received", "queued", "segmenting", "rendering"]
    engine.close()


def test_a_cancelled_image_never_reaches_the_device() -> None:
    generator, ticket = GatedGenerator(), Ticket()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.running == 1)
        second = pool.submit(error_of, engine, 2, ticket)
        wait_until(lambda: engine.waiting == 1)
        ticket.cancel()
        assert second.result(30) == (503, "cancelled")  # at once: the first is still being worked on
        assert (engine.waiting, engine.in_flight) == (0, 1)
        generator.gate.set()
        assert first.result(30) == 1
    assert ask(engine, 3) == 3
    assert generator.started == 2
    engine.close()


def test_a_cancelled_image_on_the_device_frees_its_caller_and_its_slot() -> None:
    generator, ticket = GatedGenerator(), Ticket()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(error_of, engine, 1, ticket)
        wait_until(lambda: generator.running == 1)
        ticket.cancel()
        assert asked.result(30) == (503, "cancelled")
        assert engine.in_flight == 0
    generator.gate.set()
    assert ask(engine, 2) == 2
    engine.close()


@pytest.mark.parametrize("ending", ["cancelled", "late"])
def test_of_images_encoded_together_those_nobody_waits_for_are_not_segmented(ending: str) -> None:
    class HoldingGenerator(TogetherGenerator):
        def encode(self, images):
            features = super().encode(images)
            encoding.set()
            assert hold.wait(30)
            return features

    encoding, hold = threading.Event(), threading.Event()
    generator = HoldingGenerator()
    engine = Engine(generator, Limits())
    tickets = [Ticket(time.monotonic() + (0.5 if ending == "late" else 60)) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, engine, 1)
        wait_until(lambda: generator.running == 1)
        others = [pool.submit(error_of, engine, value, one) for value, one in zip((2, 3), tickets, strict=True)]
        wait_until(lambda: engine.waiting == 2)
        last = pool.submit(ask, engine, 4)
        wait_until(lambda: engine.waiting == 3)
        generator.gate.set()
        assert encoding.wait(30)
        assert first.result(30) == 1
        if ending == "cancelled":
            for ticket in tickets:
                ticket.cancel()
        expected = (504, "timeout") if ending == "late" else (503, "cancelled")
        assert [other.result(30) for other in others] == [expected, expected]
        hold.set()
        assert last.result(30) == 4
    assert sorted(generator.encoded[0]) == [2, 3, 4]
    assert generator.started == 2  # the first, and the last
    engine.close()


def test_the_ticket_s_deadline_counts_and_not_a_new_one() -> None:
    generator = GatedGenerator()
    generator.gate.set()
    engine = Engine(generator, Limits(request_timeout=60))
    assert error_of(engine, 1, Ticket(time.monotonic() - 0.1)) == (504, "timeout")  # it took too long to arrive
    assert generator.started == 0
    assert ask(engine, 2) == 2
    engine.close()
