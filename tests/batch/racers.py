"""Programs that tests of stores run in processes of their own."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from helpers import ROOT

_RACE = """
import multiprocessing, sys
from sam2_amg.batch.stores.choose import open_store
import s3fs  # before the processes are forked, for each takes a second for it

def run(number):
    store = open_store(sys.argv[1])
    made = ""
    for i in range(int(sys.argv[2])):
        barrier.wait(60)
        made += "01"[store.create(f"{i}.json", lambda file: file.write(str(number).encode() * 1000))]
    return made

context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
with context.Pool(8) as pool:
    print(*pool.map(run, range(8), chunksize=1))
"""
_STALL = """
import sys, time
from sam2_amg.batch.stores.choose import open_store
with open_store(sys.argv[1]).write("shard.jsonl") as file:
    file.write(b"x" * (3 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""


def race(address: str, rounds: int) -> list[int]:
    """Which of eight processes made each of 0.json, 1.json ..., where all try at once. The file has the process's
    number, 1000 times."""
    answer = output_of(_RACE, address, str(rounds))
    assert answer.returncode == 0, answer.stderr
    made = answer.stdout.split()
    winners = [[process[i] for process in made] for i in range(rounds)]
    assert [(len(tried), tried.count("1")) for tried in winners] == [(8, 1)] * rounds
    return [tried.index("1") for tried in winners]


def killed_while_writing(address: str) -> None:
    """A process that is killed by SIGKILL while it writes shard.jsonl."""
    command = [sys.executable, "-c", _STALL, address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "writing\n"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def held_upload(endpoint: str, most: int) -> Iterator[tuple[str, threading.Event]]:
    """An address in front of an S3 interface, which lets no more than `most` bytes of a connection through; and the
    event that one has sent more."""
    held = threading.Event()
    host, port = endpoint.removeprefix("http://").split(":")
    threads: list[threading.Thread] = []

    def end(*ends: socket.socket) -> None:
        for each in ends:  # a thread that waits for it goes on
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def pass_on(source: socket.socket, target: socket.socket, most: float) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if passed <= most:
                    target.sendall(data)
                else:
                    held.set()
        end(source, target)

    def start(target: Callable[..., None], *arguments: Any) -> None:
        threads.append(threading.Thread(target=target, args=arguments))
        threads[-1].start()

    with ExitStack() as opened:
        front = opened.enter_context(socket.create_server(("127.0.0.1", 0)))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = opened.enter_context(front.accept()[0])
                    server = opened.enter_context(socket.create_connection((host, int(port))))
                    start(pass_on, client, server, most)
                    start(pass_on, server, client, math.inf)

        start(accept)
        yield f"http://127.0.0.1:{front.getsockname()[1]}", held
        end(front)
        for thread in threads:
            thread.join(10)


def killed_in_an_upload(address: str, endpoint: str) -> None:
    """A process that is killed by SIGKILL when a part of shard.jsonl has arrived."""
    with held_upload(endpoint, 1 << 20) as (front, held):
        environment = {**os.environ, "AWS_ENDPOINT_URL": front}
        program = _STALL.replace("time.sleep(60)", "pass")
        process = subprocess.Popen(
            [sys.executable, "-c", program, address], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            assert held.wait(30)
        finally:
            process.kill()
            process.wait()


def output_of(program: str, *arguments: str | Path, unshared: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program, if `unshared` with mounts of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    before = ["unshare", "--mount"] if unshared else []
    return subprocess.run([*before, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
