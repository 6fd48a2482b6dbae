"""The HTTP server against clients that are slow, silent, greedy or gone, over real sockets."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from helpers import wait_until

from sam2_amg.config import Limits
from sam2_amg.errors import RequestError
from sam2_amg.server import connection as connections
from sam2_amg.server import front as fronts
from sam2_amg.server.connection import State
from sam2_amg.server.front import Front
from sam2_amg.server.listen import bind
from sam2_amg.server.messages import Answer, Head, error_answer, json_answer
from sam2_amg.server.ticket import Ticket

LIMITS = Limits(queue_size=2, max_body_mib=1, max_held_mib=8, receive_timeout=5, send_timeout=5, drain_timeout=5)
LARGE = b"x" * (6 << 20)


class Pieces:
    """Three pieces of a body; fails in place of the last if it is to."""

    def __init__(self, routes: Routes, query: str) -> None:
        self.routes, self.query, self.made = routes, query, 0

    def __next__(self) -> bytes:
        if self.made == 2 and self.query == "fail":
            raise ArithmeticError("a bug")
        if self.made == 3:
            raise StopIteration
        self.made += 1
        return b"piece "

    def close(self) -> None:
        self.routes.done.append(self.query)


class Routes:
    """Answers at once on /healthz; on /work when `go` is set; /large with 6 MiB; /upload with the body's length."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []
        self.done: list[str] = []
        self.dropped: list[str] = []

    def refuse(self, head: Head) -> Answer | None:
        if head.path == "/nowhere":
            return error_answer(RequestError(404, "not_found", "There is no such place."))
        if (head.content_length or 0) > self.largest_body(head):
            return error_answer(self.too_large())
        return None

    def largest_body(self, head: Head) -> int:
        return 1 << 20

    def is_instant(self, head: Head) -> bool:
        return head.path == "/healthz"

    def is_work(self, head: Head) -> bool:
        return not self.is_instant(head)

    def open(self, head: Head) -> Ticket:
        return Ticket()

    def sent(self, head: Head | None, answer: Answer, seconds: float) -> None:
        pass

    def answer(self, head: Head, body: bytes, ticket: Ticket) -> Answer:
        if head.path == "/exit":
            raise SystemExit(3)
        if head.path == "/work":
            self.begun.append(head.query)
            self.go.wait(30)
            (self.dropped if ticket.cancelled.is_set() else self.done).append(head.query)
        if head.path == "/stream":
            return Answer(200, [("Content-Type", "text/plain")], b"", Pieces(self, head.query))
        if head.path == "/large":
            return Answer(200, [("Content-Type", "text/plain")], LARGE)
        return json_answer({"path": head.path, "query": head.query, "body": len(body)})

    def dress(self, answer: Answer, head: Head | None) -> Answer:
        return answer

    def too_large(self) -> RequestError:
        return RequestError(413, "body_too_large", "too large")

    def no_room(self) -> RequestError:
        return RequestError(503, "no_room", "no room", retry_after=1)

    def shutting_down(self) -> RequestError:
        return RequestError(503, "shutting_down", "shutting down", retry_after=5)


class Running:
    """A front in a thread, and clients of it."""

    def __init__(self, limits: Limits) -> None:
        sock = bind("127.0.0.1", 0)
        self.address = sock.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.routes = Routes()
        self.front = Front(self.routes, sock, limits)
        self.given_up = threading.Event()
        self.thread = threading.Thread(target=self.front.run, args=(self._give_up,), daemon=True)
        self.stack = ExitStack()
        self.thread.start()
        wait_until(self.is_healthy)

    def _give_up(self) -> None:
        self.given_up.set()
        self.routes.go.set()

    def connect(self, data: bytes = b"", receive_buffer: int = 0) -> socket.socket:
        client = self.stack.enter_context(socket.socket())
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(self.address)
        client.sendall(data)
        return client

    def is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=1).status_code == 200
        except requests.ConnectionError:
            return False

    def count(self, state: State) -> int:
        return sum(one.state is state for one in list(self.front._connections))


@contextmanager
def running(limits: Limits = LIMITS) -> Iterator[Running]:
    one = Running(limits)
    with one.stack:
        yield one
    one.routes.go.set()
    one.front.drain()
    one.thread.join(15)
    assert not one.thread.is_alive()
    assert one.front.budget.held == 0


CHUNKED = b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(path: str, length: int, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += receive(client, 1)
    length = int(re.search(rb"\r\nContent-Length: (\d+)", head)[1])
    return int(head.split(b" ", 2)[1]), receive(client, length)


def receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        received = client.recv(count - len(data))
        assert received, data[:200]
        data += received
    return data


def code_of(answer: tuple[int, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]["code"]


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_requests_on_one_connection_are_answered_in_order() -> None:
    with running() as one:
        client = one.connect(
            post("/upload?1", 3) + b"abc" + post("/upload?2", 0) + b"GET /a%20b HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        answers = [json.loads(read_answer(client)[1]) for _ in range(3)]
        assert [answer["query"] for answer in answers] == ["1", "2", ""]
        assert [answer["body"] for answer in answers] == [3, 0, 0]
        assert answers[2]["path"] == "/a b"
        client.sendall(b"HEAD /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"Content-Length: 6291456\r\n" in client.recv(65536)
        assert is_closed(client)
        chunked = (
            b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
        assert json.loads(read_answer(one.connect(chunked))[1])["body"] == 3


def test_a_refused_body_is_not_waited_for() -> None:
    """The answer comes before a byte of the body; what the client sends all the same does not reset the connection."""
    with running() as one:
        for path, status in (("/nowhere", 404), ("/upload", 413)):
            client = one.connect(post(path, 3 << 20, "Expect: 100-continue\r\n"))
            assert read_answer(client)[0] == status
            client.sendall(b"x" * (3 << 20))
            assert client.recv(1) == b""
        client = one.connect(post("/upload", 2, "Expect: 100-continue\r\n"))
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"ab")
        assert read_answer(client)[0] == 200
        long = (
            b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"80000\r\n%s\r\n" % bytes(0x80000) * 3
        )
        assert code_of(read_answer(one.connect(long))) == (413, "body_too_large")


def test_unfinished_bodies_are_bounded_and_leave_health_alone() -> None:
    with running() as one:
        unfinished = [one.connect(post("/upload", 1 << 20) + bytes(1000 << 10)) for _ in range(8)]
        wait_until(lambda: one.front.budget.held == 8 * 1000 << 10)
        client = one.connect(post("/upload", 1 << 20) + bytes(1 << 20))
        refused = code_of(read_answer(client))
        assert refused == (503, "no_room")
        assert one.is_healthy()
        unfinished[0].close()
        wait_until(lambda: one.front.budget.held == 7 * 1000 << 10)
        client = one.connect(post("/upload", 1 << 20) + bytes(1 << 20))
        assert read_answer(client)[0] == 200


def test_a_slow_request_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(queue_size=2, max_body_mib=1, max_held_mib=8, receive_timeout=0.6)
    with running(limits) as one:
        clients = [
            one.connect(post("/upload", 100)),
            one.connect(b"POST /upl"),
            one.connect(post("/upload", 100) + b"a"),
        ]
        wait_until(lambda: one.count(State.RECEIVING) == 3)
        for _ in range(8):  # a byte now and then does not help
            time.sleep(0.1)
            clients[2].send(b"a")
        assert {code_of(read_answer(client)) for client in clients} == {(408, "receive_timeout")}
    monkeypatch.setattr(connections, "_STALLED", 0.2)
    with running() as one:
        client = one.connect(post("/upload", 100) + b"a")
        assert code_of(read_answer(client)) == (408, "receive_timeout")


def test_clients_that_do_not_read_are_cut_off_in_time() -> None:
    limits = Limits(queue_size=2, max_body_mib=1, max_held_mib=64, send_timeout=0.7)
    with running(limits) as one:
        clients = [one.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3, receive_buffer=4096) for _ in range(4)]
        wait_until(lambda: one.count(State.SENDING) == 4)
        assert one.front.budget.held == 4 * len(LARGE)
        assert one.is_healthy()
        wait_until(lambda: one.count(State.SENDING) == 0, 5)
        assert one.front.budget.held == 0
        assert all(len(b"".join(iter_until_closed(client))) < len(LARGE) for client in clients)


def iter_until_closed(client: socket.socket) -> Iterator[bytes]:
    try:
        while data := client.recv(65536):
            yield data
    except ConnectionResetError:
        return


def test_unread_answers_make_room_for_new_ones() -> None:
    """Two of 6 MiB do not fit into 8: the one that was left unread longest goes."""
    with running() as one:
        first = one.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", receive_buffer=4096)
        wait_until(lambda: one.count(State.SENDING) == 1)
        second = one.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(second) == (200, LARGE)
        assert len(b"".join(iter_until_closed(first))) < len(LARGE)


def test_idle_connections_make_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as one:
        one.front.most_connections = 10
        working = one.connect(post("/work", 0))
        wait_until(lambda: one.routes.begun)
        idle = [one.connect() for _ in range(30)]
        assert one.is_healthy()
        assert len(one.front._connections) <= 10
        assert is_closed(idle[0])
        one.routes.go.set()
        assert read_answer(working)[0] == 200
    monkeypatch.setattr(connections, "_IDLE", 0.2)
    with running() as one:
        assert is_closed(one.connect())


def test_a_client_that_leaves_is_told_to_the_work() -> None:
    with running() as one:
        clients = [one.connect(post(f"/work?{index}", 0)) for index in range(3)]
        wait_until(lambda: len(one.routes.begun) == 3)
        for client in clients[:2]:
            client.close()
        wait_until(lambda: one.count(State.ANSWERING) == 1)
        one.routes.go.set()
        assert read_answer(clients[2])[0] == 200
        wait_until(lambda: len(one.routes.dropped) == 2)
        assert one.routes.done == ["2"]


def test_a_flood_of_pipelined_requests_is_not_kept() -> None:
    with running() as one:
        client = one.connect(post("/work", 0))
        wait_until(lambda: one.routes.begun)
        client.settimeout(1)
        with pytest.raises(TimeoutError):  # it is no longer read
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000_000)
        (connection,) = one.front._connections
        assert len(connection._inbox) < 1 << 20
        assert one.is_healthy()


MALFORMED = {
    "two lengths": b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "version 9.9": b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "version 2.0": b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n",
    "a length of 5,000 digits": b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n",
    "a negative length": b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n",
    "chunks in 1.0": b"POST /upload HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no target": b"GET http://[x/info HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is no path": b"GET info HTTP/1.1\r\nHost: a\r\n\r\n",
    "no request": b"NONSENSE\r\n\r\n",
    "a chunk of no size": b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
}


def test_malformed_requests_get_400() -> None:
    with running() as one:
        for name, data in MALFORMED.items():
            client = one.connect(data)
            assert code_of(read_answer(client)) == (400, "bad_request"), name
            assert is_closed(client)
        assert read_answer(one.connect(CHUNKED + b"1" * (1 << 17)))[0] == 431
        assert read_answer(one.connect(b"GET /" + b"a" * (1 << 17)))[0] == 431
        other = b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"
        assert code_of(read_answer(one.connect(other))) == (501, "not_implemented")


def test_whatever_is_raised_is_a_500() -> None:
    with running() as one:
        response = requests.get(f"{one.url}/exit", timeout=5)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert one.is_healthy()


def test_draining_answers_what_is_accepted_and_refuses_the_rest() -> None:
    with running() as one:
        idle, working = one.connect(), one.connect(post("/work", 0))
        unfinished = one.connect(post("/upload", 10) + b"abc")
        wait_until(lambda: one.routes.begun and one.count(State.RECEIVING) == 1)
        one.front.drain()
        assert code_of(read_answer(unfinished)) == (503, "shutting_down")
        assert is_closed(idle)
        with pytest.raises(ConnectionRefusedError):
            one.connect()
        assert one.thread.is_alive()
        one.routes.go.set()
        assert read_answer(working)[0] == 200
        one.thread.join(5)
        assert not one.thread.is_alive()
        assert not one.given_up.is_set()


def test_a_client_that_sends_meanwhile_reads_that_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "_LAST_READS", 10)
    with running() as one:
        client = one.connect(post("/upload", 1 << 20) + b"abc")
        wait_until(lambda: one.count(State.RECEIVING) == 1)
        one.front.drain()
        for _ in range(5):
            client.sendall(bytes(1000))
            time.sleep(0.1)
        assert code_of(read_answer(client)) == (503, "shutting_down")
        assert is_closed(client)


def test_a_drain_has_an_end() -> None:
    """After `drain_delay`, in which connections are taken, and `drain_timeout`, what waits is given up."""
    with running(Limits(queue_size=2, drain_delay=0.5, drain_timeout=0.5)) as one:
        working = one.connect(post("/work", 0))
        wait_until(lambda: one.routes.begun)
        one.front.drain()
        started = time.monotonic()
        assert one.is_healthy()
        assert read_answer(working)[0] == 200  # `give_up` has it answered
        assert time.monotonic() - started >= 0.9
        assert one.given_up.is_set()


def test_a_full_budget_leaves_health_and_answers_alone() -> None:
    """Bodies that stop one byte before their end hold all; what others are answered is sent all the same."""
    with running() as one:
        for _ in range(8):
            one.connect(post("/upload", 1 << 20) + bytes((1 << 20) - 1))
        wait_until(lambda: one.front.budget.held == 8 * ((1 << 20) - 1))
        assert one.is_healthy()
        assert read_answer(one.connect(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")) == (200, LARGE)


def test_slow_heads_do_not_lock_others_out() -> None:
    with running() as one:
        one.front.most_connections = 10
        slow = [one.connect(b"G") for _ in range(10)]
        wait_until(lambda: one.count(State.RECEIVING) == 10)
        time.sleep(1.1)
        assert all(one.is_healthy() for _ in range(5))
        assert is_closed(slow[0])


def test_a_client_that_pipelines_and_reads_is_bounded() -> None:
    """For three seconds: each answer reads no more than the limit, and health answers meanwhile."""
    with running() as one:
        client = one.connect()
        client.setblocking(False)
        data, slowest = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000, 0.0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for move in (lambda: client.send(data), lambda: client.recv(1 << 20)):
                with contextlib.suppress(BlockingIOError):
                    move()
            began = time.monotonic()
            assert one.is_healthy()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1
        assert max(len(connection._inbox) for connection in list(one.front._connections)) < 1 << 20


def test_tiny_chunks_are_refused_and_bodies_cost_their_size() -> None:
    with running() as one:
        client = one.connect(CHUNKED)
        with contextlib.suppress(ConnectionError):
            client.sendall(b"1\r\nx\r\n" * 20_000)
        assert code_of(read_answer(client)) == (400, "bad_request")
        assert one.is_healthy()
        client = one.connect(CHUNKED)
        client.sendall((b"41\r\n" + b"x" * 65 + b"\r\n") * 12_000)
        wait_until(lambda: any(each._held == 65 * 12_000 for each in list(one.front._connections)))
        (slow,) = (each for each in one.front._connections if each._held)
        assert sum(map(sys.getsizeof, slow._body)) < 1.25 * slow._held


def test_what_is_left_of_a_body_is_not_taken_for_a_client_that_left() -> None:
    """Clients that come and go while the server is busy: each has sent more chunks than are handled in a turn."""
    head = CHUNKED.replace(b"Host", b"Expect: 100-continue\r\nHost")
    with running() as one:
        loop_is_free = threading.Event()
        one.front._loop.call_soon_threadsafe(loop_is_free.wait)
        for _ in range(10):
            client = one.connect(head + (b"64\r\n" + b"x" * 100 + b"\r\n") * 2200)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            client.close()
        loop_is_free.set()
        wait_until(one.is_healthy)
        wait_until(lambda: one.front.budget.held == 0)


def test_answers_without_a_body_wait_for_their_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_IDLE", 0.5)
    with running(Limits(queue_size=2, max_body_mib=1, max_held_mib=8, send_timeout=0.5)) as one:
        client = one.connect(receive_buffer=4096)
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            client.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 200_000)
        wait_until(lambda: len(one.front._connections) == 0, 15)


ODD = {
    "HEAD with a target that cannot be read": b"HEAD http://[x/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD with both framings": b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "200 headers": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_heads_are_answered_at_once(name: str) -> None:
    with running() as one:
        began = time.monotonic()
        client = one.connect(ODD[name])
        head = b"".join(iter_until_closed(client))
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
        assert time.monotonic() - began < 3


def test_a_line_break_between_requests_is_passed_over() -> None:
    with running() as one:
        client = one.connect(b"\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET //a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(client)[0] == 200
        assert json.loads(read_answer(client)[1])["path"] == "/a"


def test_a_thread_that_cannot_start_is_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with running() as one:
        monkeypatch.setattr(one.front._work, "submit", refuse)
        assert code_of(read_answer(one.connect(post("/upload", 0)))) == (500, "internal_error")
        monkeypatch.undo()
        assert read_answer(one.connect(post("/upload", 0)))[0] == 200


def test_a_stream_comes_in_chunks_and_is_closed_once() -> None:
    with running() as server, requests.Session() as session:
        for _ in range(2):
            answer = session.get(f"{server.url}/stream?whole", timeout=10)
            assert answer.text == "piece piece piece "
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert "Content-Length" not in answer.headers
        assert session.head(f"{server.url}/stream?head", timeout=10).text == ""
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(f"{server.url}/stream?fail", timeout=10)
        wait_until(lambda: sorted(server.routes.done) == ["fail", "head", "whole", "whole"])
        assert server.front.budget.held == 0
