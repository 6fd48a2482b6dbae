"""Connections between the front and replicas, over real sockets, without Ray."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from helpers import wait_until

from sam2_amg.answers.options import Answer
from sam2_amg.errors import RequestError
from sam2_amg.replicas.channel import Channel, ChannelLost, TimeIsOver, connect
from sam2_amg.replicas.links import Links
from sam2_amg.replicas.listener import Listener
from sam2_amg.replicas.messages import Call, ReplicaState, Reply
from sam2_amg.server.parameters import Asked
from sam2_amg.server.ticket import Ticket

KEY = os.urandom(32)


@pytest.fixture
def links() -> Iterator[Links]:
    made = Links(KEY)
    yield made
    made.end()


def call(data: bytes, request_id: str = "one") -> Call:
    return Call("a.jpg", data, Asked.__new__(Asked), request_id, 20.0)


def echo(asked: Call, _: Ticket) -> Reply:
    return Reply(Answer(asked.data, "image/jpeg", ".jpg"), len(asked.data))


def listening(answer: Callable[[Call, Ticket], Reply] = echo, threads: int = 16) -> ReplicaState:
    """A replica that answers so, and where it does."""
    return ReplicaState("one", 0, "node", 1, "cpu", address=Listener("127.0.0.1", KEY, answer, threads).address)


def ticket(seconds: float = 20) -> Ticket:
    return Ticket(time.monotonic() + seconds)


def threads_named(name: str) -> int:
    return sum(each.name == name for each in threading.enumerate())


@pytest.mark.parametrize("size", [0, 1, 16_385, 5_000_000])
def test_each_reply_goes_to_its_call(size: int, links: Links) -> None:
    replica = listening()
    datas = [bytes([i]) * size for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):  # the second time over connections that are there
            replies = list(pool.map(lambda data: links.ask(replica, call(data), ticket()), datas))
            assert [reply.answer.data for reply in replies if reply.answer] == datas
    links.end()
    wait_until(lambda: threads_named("connection") == 0)


def test_a_refusal_comes_whole(links: Links) -> None:
    refusal = RequestError(503, "queue_full", "All slots are in use.", retry_after=3)
    found = links.ask(listening(lambda *_: Reply(refusal=refusal)), call(b""), ticket()).refusal
    assert found is not None
    assert vars(found) == vars(refusal)


def test_nothing_is_read_of_those_who_do_not_know_the_key(tmp_path: Path, links: Links) -> None:
    replica = listening()
    assert replica.address is not None
    with pytest.raises(ChannelLost, match="AuthenticationError"):
        connect(replica.address, b"another key")

    class Harmful:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "made"),)

    sock = socket.create_connection(replica.address)
    stranger = Channel(sock)
    stranger.limit(10)
    stranger.send(Harmful())
    wait_until(lambda: threads_named("connection") == 0)
    stranger.close()
    assert list(tmp_path.iterdir()) == []
    assert links.ask(replica, call(b"good"), ticket()).masks == 4


def test_a_front_sends_nothing_to_those_who_do_not_know_the_key() -> None:
    other = Listener("127.0.0.1", b"another key", echo, 1)
    with pytest.raises(ChannelLost, match="AuthenticationError"):
        connect(other.address, KEY)


def test_strangers_that_say_nothing_keep_nobody_out(links: Links) -> None:
    replica = listening()
    assert replica.address is not None
    silent = [socket.create_connection(replica.address) for _ in range(60)]
    assert links.ask(replica, call(b"good"), ticket()).masks == 4
    for each in silent:
        each.close()
    links.end()
    wait_until(lambda: threads_named("connection") == 0)


class Working:
    """Answers once it is told to, or its ticket is cancelled."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.go_on = threading.Event()

    def __call__(self, asked: Call, ticket: Ticket) -> Reply:
        self.tickets.append(ticket)
        with ticket.calling_on_cancel(self.go_on.set):
            assert self.go_on.wait(20)
        return echo(asked, ticket)


@pytest.mark.parametrize("way", ["cancelled", "time is over", "front ends"])
def test_a_call_that_is_given_up_is_cancelled_at_the_replica(way: str, links: Links) -> None:
    working = Working()
    replica, mine = listening(working), ticket(0.3 if way == "time is over" else 20)
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        waiting = pool.submit(links.ask, replica, call(b""), mine)
        wait_until(lambda: working.tickets)
        if way == "cancelled":
            mine.cancel()
        elif way == "front ends":
            links.end()
        with pytest.raises(TimeIsOver if way == "time is over" else ChannelLost):
            waiting.result()
        assert time.monotonic() - begun < 2
    wait_until(lambda: working.tickets[0].state == "cancelled")


def test_a_lost_replica_is_noticed_at_once(links: Links) -> None:
    accepting = socket.create_server(("127.0.0.1", 0))
    address = accepting.getsockname()[:2]

    def introduce_and_end() -> None:
        channel = Channel(accepting.accept()[0])
        channel.introduce(KEY, is_front=False)
        channel.receive()
        channel.close()

    threading.Thread(target=introduce_and_end).start()
    replica = ReplicaState("one", 0, "node", 1, "cpu", address=address)
    with pytest.raises(ChannelLost, match=r"EOFError|ConnectionResetError"):
        links.ask(replica, call(b""), ticket())
    accepting.close()
    with pytest.raises(ChannelLost, match="ConnectionRefusedError"):
        links.ask(replica, call(b""), ticket())


def test_a_replica_that_reads_nothing_takes_no_longer_than_the_request_has(links: Links) -> None:
    accepting = socket.create_server(("127.0.0.1", 0))

    def introduce() -> None:
        channel = Channel(accepting.accept()[0])
        channel.introduce(KEY, is_front=False)
        ended.wait(20)
        channel.close()

    ended = threading.Event()
    reader = threading.Thread(target=introduce)
    reader.start()
    replica = ReplicaState("one", 0, "node", 1, "cpu", address=accepting.getsockname()[:2])
    with pytest.raises(TimeIsOver):
        links.ask(replica, call(bytes(30_000_000)), ticket(0.3))
    ended.set()
    reader.join()
    accepting.close()


def relay(accepting: socket.socket) -> None:
    """Answers the challenge of one front with what another front answers to the same."""
    first, second = (Connection(accepting.accept()[0].detach()) for _ in range(2))
    first.send_bytes(b"#CHALLENGE#" + os.urandom(20))
    first.recv_bytes()
    first.send_bytes(b"#WELCOME#")
    second.send_bytes(first.recv_bytes())
    first.send_bytes(second.recv_bytes())
    first.recv_bytes()
    first.close()
    second.close()


def test_the_answer_of_one_front_is_no_answer_to_another() -> None:
    accepting = socket.create_server(("127.0.0.1", 0))
    address = accepting.getsockname()[:2]
    with ThreadPoolExecutor(3) as pool:
        relaying = pool.submit(relay, accepting)
        for each in [pool.submit(connect, address, KEY) for _ in range(2)]:
            with pytest.raises(ChannelLost, match=r"AuthenticationError|EOFError|ConnectionResetError"):
                each.result()
        relaying.result()
    accepting.close()


def test_whether_a_replica_can_be_reached(links: Links) -> None:
    replica = listening()
    assert links.reaches(replica)
    assert links.ask(replica, call(b"good"), ticket()).masks == 4
    with socket.create_server(("127.0.0.1", 0)) as silent:
        other = ReplicaState("two", 0, "node", 1, "cpu", address=silent.getsockname()[:2])
        assert not links.reaches(other)
    assert not links.reaches(other)  # nobody listens any more


def test_what_is_sent_can_be_read_again() -> None:
    assert pickle.loads(pickle.dumps(Reply(stages=(("decode", 0.1),)))) == Reply(stages=(("decode", 0.1),))
