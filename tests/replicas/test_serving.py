"""A server whose answers replicas make, with real Ray, over real HTTP."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from helpers import CPU, RunningServer, assert_error, drawn_image, png, start_server, wait_until
from local_server import LocalServer, serving
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Limits, Mode
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.modes.build import build_generator

pytestmark = pytest.mark.xdist_group("ray")  # one Ray at a time
SCRIPT = Path(__file__).with_name("recording_server.py")
QUICK = ("--points_per_side", "2", "--pred_iou_thresh", "0", "--stability_score_thresh", "0")
IMAGES = [png(drawn_image(60, 80, seed)) for seed in range(2)]
QUERIES = ("upload_rle", "upload", "segment?format=records&max_masks=2")


@dataclass
class Replicated:
    """A server with replicas, and the file that they write what they are asked into."""

    server: RunningServer
    calls: Path

    @property
    def replicas(self) -> list[dict]:
        return self.server.get("/info").json()["replicas"]

    @property
    def ready(self) -> list[int]:
        """The processes of replicas that answer."""
        return [each["pid"] for each in self.replicas if each["state"] == "ready"]

    def lines(self) -> list[tuple[float, int, str]]:
        """When which process was asked for which request."""
        fields = [line.split() for line in self.calls.read_text().splitlines()]
        return [(float(when), int(pid), name) for when, pid, name in fields]


def end(server: RunningServer) -> int:
    """Its exit status, after SIGTERM."""
    status = server.stop()
    assert server.process.stdout is not None
    server.process.stdout.close()
    return status


def replicated(folder: Path, *arguments: str) -> Replicated:
    calls = folder / "calls"
    calls.touch()
    command = (sys.executable, str(SCRIPT), str(calls))
    return Replicated(start_server("--device", "cpu", *QUICK, *arguments, command=command), calls)


def ray_processes() -> list[psutil.Process]:
    """Every process of Ray on this host."""
    return [each for each in psutil.process_iter(["cmdline"]) if "ray" in " ".join(each.info["cmdline"] or [])[:200]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    found = replicated(tmp_path_factory.mktemp("replicas"), "--replicas", "2")
    yield found
    family = psutil.Process(found.server.process.pid).children(recursive=True)
    assert end(found.server) == 0
    _, alive = psutil.wait_procs(family, 20)
    assert alive == []


@pytest.fixture(scope="module")
def plain(demo_model: SAM2Base, decoders: DecoderPool) -> Iterator[LocalServer]:
    """The same without Ray, in this process."""
    config = GeneratorConfig(points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    with serving(build_generator(demo_model, Mode.AO, config, CPU), decoders, Limits()) as server:
        yield server


def ask(server: RunningServer | LocalServer, path: str, data: bytes, name: str) -> requests.Response:
    headers = {"X-Request-ID": name}
    return requests.post(f"{server.url}/{path}", files={"image": ("image", data)}, headers=headers, timeout=120)


def test_answers_and_errors_are_those_of_a_server_without_replicas(running: Replicated, plain: LocalServer) -> None:
    for path in (*QUERIES, "segment?format=gif", "upload_rle?points_per_side=9999", "segment?points_per_side=3"):
        ours, theirs = (ask(server, path, IMAGES[0], "same") for server in (running.server, plain))
        assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
        assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
    for data in (b"", b"no image", IMAGES[0][:50]):
        ours, theirs = (ask(server, "upload_rle", data, "same") for server in (running.server, plain))
        assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
        assert ours.status_code >= 400
    files = [("image", (f"{i}.png", data)) for i, data in enumerate(IMAGES)]
    ours, theirs = (
        sorted(requests.post(f"{server.url}/batch", files=files, timeout=120).text.splitlines())
        for server in (running.server, plain)
    )
    assert ours == theirs


def test_replicas_are_seen(running: Replicated) -> None:
    wait_until(lambda: len(running.ready) == 2)
    for each in running.replicas:
        assert "ServeReplica" in " ".join(psutil.Process(each["pid"]).cmdline())
        assert each.keys() == {"rank", "node", "pid", "device", "images", "state", "queue", "restarts"}
    text = running.server.get("/metrics").text
    assert re.findall(r'sam2_amg_replica_ready{device="cpu",node="[^"]+",rank="(\d)"} 1.0', text) == ["0", "1"]
    stages = ask(running.server, "upload_rle", IMAGES[0], "stages").headers["Server-Timing"]
    assert re.findall(r"(\w+);", stages) == ["receive", "decode", "queue", "segment", "answer"]


def test_every_port_of_ray_is_on_the_loopback_address(running: Replicated) -> None:
    front = psutil.Process(running.server.process.pid)
    family = [front, *front.children(recursive=True)]
    ports = [one.laddr for each in family for one in each.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert len(ports) > 8
    assert {address.ip for address in ports} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_cancelled_request_is_answered_at_once(running: Replicated) -> None:
    wait_until(lambda: len(running.ready) == 2, 90)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, running.server, "upload_rle?points_per_side=20", IMAGES[0], "long")
        wait_until(lambda: running.server.get("/requests/long").json().get("state") == "segmenting")
        begun = time.monotonic()
        assert requests.delete(f"{running.server.url}/requests/long", timeout=10).json()["state"] == "cancelled"
        assert_error(answer.result(), 503, "cancelled")
        assert time.monotonic() - begun < 2
    wait_until(lambda: sum(each["queue"] for each in running.replicas) == 0, 60)


Right = dict[tuple[str, int], requests.Response]


@pytest.fixture(scope="module")
def right(plain: LocalServer) -> Right:
    """By path and image, the answer of a server without replicas."""
    found = {(path, i): ask(plain, path, data, "right") for path in QUERIES for i, data in enumerate(IMAGES)}
    assert {each.status_code for each in found.values()} == {200}
    return found


def load(found: Replicated, right: Right, count: int, clients: int) -> list[tuple[str, requests.Response, bytes]]:
    """Sends requests of a few kinds: the name of each, its answer, and the right one."""
    kinds = [random.choice(list(right)) for _ in range(count)]
    tag = os.urandom(4).hex()

    def send(number: int) -> tuple[str, requests.Response, bytes]:
        path, image = kinds[number]
        name = f"{tag}-{number}"
        return name, ask(found.server, path, IMAGES[image], name), right[path, image].content

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(send, range(count)))


def require_right(found: Replicated, answers: list[tuple[str, requests.Response, bytes]]) -> int:
    """Each has its own answer, or an honest 503, and was tried at most twice; how many have their answer."""
    calls = Counter(name for _, _, name in found.lines())
    served = 0
    for name, response, right in answers:
        assert response.headers["X-Request-ID"] == name
        assert calls[name] <= 2
        if response.status_code == 503:
            assert response.headers["Retry-After"]
            assert response.json()["error"]["code"] in ("replica_lost", "no_replica", "queue_full")
        else:
            assert (response.status_code, response.content) == (200, right)
            assert calls[name] >= 1
            served += 1
    return served


def kill_at_random(found: Replicated, ended: threading.Event, pause: tuple[float, float]) -> int:
    """Kills replicas until the event; how many."""
    killed = 0
    while not ended.wait(random.uniform(*pause)):
        for pid in random.sample(found.ready, 1) if found.ready else []:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def test_what_a_killed_replica_had_is_tried_on_another(running: Replicated, right: Right) -> None:
    wait_until(lambda: len(running.ready) == 2)
    victim = running.ready[0]
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    answers = load(running, right, 12, 8)
    assert require_right(running, answers) >= 11
    assert victim in {pid for _, pid, _ in running.lines()}
    assert victim not in running.ready


@pytest.mark.slow
def test_a_replica_that_stands_still_gets_under_a_tenth(running: Replicated, right: Right) -> None:
    wait_until(lambda: len(running.ready) == 2, 90)
    victim = running.ready[0]
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(load, running, right, 80, 8)
        time.sleep(2)
        os.kill(victim, signal.SIGSTOP)
        begun = time.time()
        time.sleep(2)
        ended = time.time()
        os.kill(victim, signal.SIGCONT)
        assert require_right(running, answers.result()) == 80
    meanwhile = [pid for when, pid, _ in running.lines() if begun + 0.1 < when < ended]
    assert meanwhile
    # what reaches it is written down once it goes on, and then at once
    late = [pid for when, pid, _ in running.lines() if ended <= when < ended + 0.2 and pid == victim]
    assert len(late) <= max(1, (len(meanwhile) + len(late)) / 10)  # one may be on its way when it stops


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_300_requests_while_replicas_are_killed(count: int, right: Right, tmp_path: Path) -> None:
    found = replicated(tmp_path, "--replicas", str(count))
    try:
        wait_until(lambda: len(found.ready) == count, 120)
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill_at_random, found, ended, (10.0, 20.0))
            answers = load(found, right, 300, 32)
            ended.set()
            assert killing.result() >= 3
        assert require_right(found, answers) >= 150
        wait_until(lambda: len(found.ready) == count, 120)
        assert sum(each["restarts"] for each in found.replicas) >= 3
    finally:
        assert end(found.server) == 0


@pytest.mark.slow
def test_nothing_is_left_of_a_front_that_is_killed(tmp_path: Path) -> None:
    found = replicated(tmp_path, "--replicas", "1")
    family = psutil.Process(found.server.process.pid).children(recursive=True)
    found.server.process.kill()
    end(found.server)
    _, alive = psutil.wait_procs(family, 90)  # agents of Ray take a minute, all others a few seconds
    assert alive == []


@pytest.mark.slow
def test_replicas_scale_with_the_queue(tmp_path: Path) -> None:
    found = replicated(tmp_path, "--replicas", "1:2")
    try:
        ended = threading.Event()

        def go_on() -> None:
            while not ended.is_set():
                ask(found.server, "upload_rle", IMAGES[0], os.urandom(8).hex())

        with ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(go_on)
            try:
                wait_until(lambda: len(found.ready) == 2, 120)
            finally:
                ended.set()
    finally:
        assert end(found.server) == 0


@pytest.mark.slow
def test_a_cluster_keeps_nothing_of_a_front_that_is_killed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One of its two replicas has a core, and answers; the other waits for one, and the log says so."""
    ray = str(Path(sys.executable).with_name("ray"))
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    start = [ray, "start", "--head", "--port", "6399", "--num-cpus", "1", "--include-dashboard", "false"]
    subprocess.run(start, env=environment, check=True, capture_output=True)
    try:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ[name] = environment[name]
        found = replicated(tmp_path, "--replicas", "2", "--ray_address", "127.0.0.1:6399")
        assert "the cluster has 1 of 1 CPUs free; each of 2 replicas takes one" in capfd.readouterr().err
        assert ask(found.server, "upload_rle", b"x", "bad").status_code == 415
        assert ask(found.server, "upload_rle", IMAGES[0], "good").status_code == 200
        (replica,) = found.ready
        found.server.process.kill()
        end(found.server)
        wait_until(lambda: not psutil.pid_exists(replica), 50)
        wait_until(lambda: not [each for each in ray_processes() if "ray::Serve" in " ".join(each.cmdline())], 30)
    finally:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
        subprocess.run([ray, "stop", "--force"], env=environment, check=True, capture_output=True)
