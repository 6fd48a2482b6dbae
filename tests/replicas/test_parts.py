"""What replicas are made of, without Ray."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import pickle
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers import wait_until

from sam2_amg.cli.arguments import Parser, add_device, add_replicas, device_of, replicas_of
from sam2_amg.config import GeneratorConfig, Mode, ModelConfig, ReplicaConfig, ServerConfig
from sam2_amg.demo import DEMO_DIR
from sam2_amg.errors import ParameterError, RequestError, StartupError
from sam2_amg.replicas.backend import ReplicaBackend
from sam2_amg.replicas.compiling import after_the_first
from sam2_amg.replicas.files import files_of, local_model
from sam2_amg.replicas.gate import Gate, Turn
from sam2_amg.replicas.messages import ReplicaState, Word
from sam2_amg.replicas.registry import Registry
from sam2_amg.replicas.runtime import set_environment
from sam2_amg.server.ticket import Ticket

PACKAGE = Path(__file__).parents[2] / "sam2_amg"
PARAMETERS = GeneratorConfig()


def state(started: str, rank: int = 0, at_once: int = 1) -> ReplicaState:
    return ReplicaState(started, rank, "node", 1, "cpu", at_once=at_once)


@dataclass
class Line:
    """Requests that pass a gate, each in a thread, and stay inside until they are told to leave."""

    gate: Gate
    pool: ThreadPoolExecutor
    inside: list[tuple[str, str]] = field(default_factory=list)  # (request, replica), in order of admission
    leaving: dict[str, threading.Event] = field(default_factory=lambda: defaultdict(threading.Event))

    def come(self, name: str, seconds: float = 20, first: bool = False) -> Future[None]:
        turn = Turn(Ticket(time.monotonic() + seconds, name))
        assert self.gate.put(turn, first)
        return self.pool.submit(self._pass, turn, seconds)

    def _pass(self, turn: Turn, seconds: float) -> None:
        with self.gate.passing(turn, seconds) as replica:
            self.inside.append((turn.ticket.request_id, replica.started))
            assert self.leaving[turn.ticket.request_id].wait(20)

    def shows(self, *inside: tuple[str, str]) -> None:
        wait_until(lambda: len(self.inside) == len(inside))
        assert sorted(self.inside) == sorted(inside)


def test_a_gate_lets_go_on_in_order_to_the_replica_with_the_least_work() -> None:
    gate = Gate(10)
    with ThreadPoolExecutor(8) as pool:
        line = Line(gate, pool)
        running = [line.come(name) for name in "abcdef"]
        assert [gate.place_of(name) for name in "abcdefg"] == [0, 1, 2, 3, 4, 5, None]
        gate.set_replicas([state("one", at_once=3), state("two", at_once=1)])
        line.shows(("a", "one"), ("b", "two"), ("c", "one"), ("d", "one"))
        assert (gate.inside, gate.waiting, gate.place_of("e")) == (4, 2, 0)
        running.append(line.come("again", first=True))
        line.leaving["b"].set()
        wait_until(lambda: line.inside[-1] == ("again", "two"))
        gate.set_replicas([state("two", at_once=2)])  # `one` is lost
        wait_until(lambda: line.inside[-1] == ("e", "two"))
        for name in "acd":
            line.leaving[name].set()
        wait_until(lambda: gate.inside == 2)
        assert gate.waiting == 1
        gate.set_replicas([])
        for name in ("again", "e", "f"):
            line.leaving[name].set()
        wait_until(lambda: gate.inside == 0)
        assert gate.waiting == 1
        gate.set_replicas([state("three")])
        for each in running:
            each.result()
    assert line.inside[-1] == ("f", "three")
    assert (gate.inside, gate.waiting) == (0, 0)


def test_a_replica_that_stands_still_gets_no_more_than_it_had() -> None:
    gate = Gate(100)
    gate.set_replicas([state("still", at_once=6), state("works", at_once=6)])
    with ThreadPoolExecutor(8) as pool:
        line = Line(gate, pool)
        running = [line.come(str(i)) for i in range(8)]
        wait_until(lambda: len(line.inside) == 8)
        had = {name for name, replica in line.inside if replica == "still"}
        assert len(had) == 4
        for i in range(8, 48):  # each client sends again once it has its answer
            done = next(name for name, replica in line.inside if name not in had and not line.leaving[name].is_set())
            line.leaving[done].set()
            running.append(line.come(str(i)))
            wait_until(lambda count=i: len(line.inside) > count)
        for i in range(48):
            line.leaving[str(i)].set()
        for each in running:
            each.result()
    assert {name for name, replica in line.inside if replica == "still"} == had


def test_whoever_is_cancelled_or_out_of_time_leaves_the_line() -> None:
    gate = Gate(10)
    with ThreadPoolExecutor(2) as pool:
        line = Line(gate, pool)
        turn = Turn(Ticket(time.monotonic() + 20))
        gate.put(turn)
        threading.Timer(0.05, turn.ticket.cancel).start()
        with pytest.raises(RequestError, match="cancelled"), gate.passing(turn, 20):
            raise AssertionError
        with pytest.raises(RequestError, match="No answer within"):
            line.come("late", 0.05).result()
        assert gate.waiting == 0
        gate.set_replicas([state("one")])
        assert gate.inside == 0
        gate.abandon(RequestError(503, "shutting_down", "The end."))
        assert not gate.put(Turn(Ticket()))


def test_a_registry_knows_the_latest_start_of_each_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, now = Registry(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    registry.look()
    for name, rank in (("a", 0), ("b", 1), ("c", 0)):
        now[0] += 2
        assert registry.note(state(name, rank)) == Word(now[0], 0)
    assert [(each.state.started, each.silent, each.restarts) for each in registry.look(7)] == [("c", 0, 1), ("b", 2, 0)]
    assert registry.note(state("b", 1)) == Word(0, 7)
    now[0] += 14.5
    assert [each.state.started for each in registry.look()] == ["c", "b"]
    now[0] += 1
    assert registry.look() == []


def test_a_registry_shows_two_of_a_rank_while_both_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Serve gives a rank again once it has ended a replica, and tells those that are left nothing of it."""
    registry, now = Registry(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for name in ("a", "b", "a"):
        registry.note(state(name))
        now[0] += 1
    assert [each.state.started for each in registry.look()] == ["a", "b"]
    now[0] += 3
    assert [each.state.started for each in registry.look()] == ["b"]


def test_files_are_used_where_they_are_or_copied(tmp_path: Path) -> None:
    there = ModelConfig(DEMO_DIR, "demo")
    files = files_of(there)
    path, sha256 = files.checkpoint
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256
    registry = Registry(files.paths)
    assert local_model(there, files, registry.read, tmp_path).checkpoint_dir == Path(path)
    assert list(tmp_path.iterdir()) == []
    elsewhere = type(files)((str(tmp_path / Path(path).name), sha256))

    def read(_: str, offset: int) -> bytes:
        return registry.read(path, offset)

    copied = local_model(there, elsewhere, read, tmp_path / "cache").checkpoint_dir
    assert copied.parent.parent == tmp_path / "cache"
    assert copied.read_bytes() == Path(path).read_bytes()
    local_model(there, elsewhere, lambda *_: b"never read", tmp_path / "cache")
    with pytest.raises(StartupError, match="has changed since"):
        local_model(there, elsewhere, lambda _, offset: b"" if offset else b"another", tmp_path / "other")
    assert [each.suffix for each in (tmp_path / "other").rglob("*") if each.is_file()] == [".lock"]
    with pytest.raises(PermissionError):
        registry.read("/etc/passwd", 0)


def test_packages_are_copied_together(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("a.pt2", "manifest.json"):
        (packages / name).write_text(name)
    model = ModelConfig(DEMO_DIR, "demo", Mode.FAST, load_exported=packages)
    files = files_of(model)
    assert local_model(model, files, Registry().read, tmp_path / "cache").load_exported == packages
    contents = {str(path): path.read_bytes() for path in packages.iterdir()}
    (packages / "a.pt2").write_text("of another build")
    found = local_model(model, files, lambda path, offset: contents[path][offset:], tmp_path / "cache").load_exported
    assert found is not None
    assert {path.name: path.read_text() for path in found.iterdir()} == {
        name: name for name in ("a.pt2", "manifest.json")
    }


def test_one_compiles_and_the_others_wait(tmp_path: Path) -> None:
    model, log = ModelConfig(DEMO_DIR, "demo", Mode.FAST), []

    def start(index: int) -> None:
        with after_the_first(model, PARAMETERS, tmp_path, lambda _: None):
            log.append(("begin", index))
            time.sleep(0.2)
            log.append(("end", index))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, range(3)))
    assert [what for what, _ in log[:2]] == ["begin", "end"]
    assert [what for what, _ in log[2:]] == ["begin", "begin", "end", "end"]


def test_other_parameters_are_compiled_by_one_again(tmp_path: Path) -> None:
    model, said = ModelConfig(DEMO_DIR, "demo", Mode.FAST), []
    for points in (32, 8, 32, 8):
        with after_the_first(model, GeneratorConfig(points_per_side=points), tmp_path, said.append):
            pass
    assert len(said) == 2  # each had to wait once


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = ModelConfig(DEMO_DIR, "demo", Mode.FAST)
    with (
        pytest.raises(StartupError, match=r"cache in .*file/cache \(Not a directory\); choose another folder"),
        after_the_first(model, PARAMETERS, tmp_path / "file" / "cache", lambda _: None),
    ):
        pass


def test_a_failure_to_compile_lets_the_next_try(tmp_path: Path) -> None:
    model = ModelConfig(DEMO_DIR, "demo", Mode.FAST)
    with pytest.raises(StartupError), after_the_first(model, PARAMETERS, tmp_path, lambda _: None):
        raise StartupError("no compiler")
    said: list[str] = []
    with after_the_first(model, PARAMETERS, tmp_path, said.append):
        assert said == ["waiting for another replica to compile"]


def parsed(*arguments: str) -> ReplicaConfig | None:
    parser = Parser("serve", "")
    add_device(parser)
    add_replicas(parser)
    return replicas_of(parser.parse(arguments))


def test_flags_of_replicas() -> None:
    assert parsed() is None
    assert parsed("--replicas", "2") == ReplicaConfig(2, 2)
    assert parsed("--replicas=2:5", "--ray-address", "auto") == ReplicaConfig(2, 5, "auto")
    for arguments, problem in (
        (("--replicas", "two"), "neither N nor MIN:MAX"),
        (("--replicas", "3:2"), "--replicas must be"),
        (("--replicas", "0"), "--replicas must be"),
        (("--ray_address", "auto"), "needs --replicas"),
        (("--replicas", "2", "--device", "cuda:1"), "CUDA_VISIBLE_DEVICES"),
        (("--device", "gpu"), "none of auto, cpu, cuda and cuda:N"),
    ):
        with pytest.raises((StartupError, ParameterError), match=problem):
            parsed(*arguments)


@pytest.mark.parametrize(
    ("visible", "name", "chosen"), [(None, "cuda:1", "1"), ("4,7", "cuda:1", "7"), ("4,7", "cuda:2", "")]
)
def test_a_gpu_is_chosen_among_those_that_are_visible(
    visible: str | None, name: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.is_available", lambda: os.environ["CUDA_VISIBLE_DEVICES"] == "7")
    if chosen == "7":
        assert device_of(name) == "cuda"
    else:
        with pytest.raises(StartupError, match=f"--device {name}: torch finds no such CUDA device"):
            device_of(name)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_problems_at_the_start_are_told_before_ray_starts(tmp_path: Path) -> None:
    config = ServerConfig(ModelConfig(tmp_path, "demo"), replicas=ReplicaConfig(1, 1))
    with pytest.raises(StartupError, match="is missing; the demo model is in"):
        ReplicaBackend(config, ReplicaConfig(1, 1)).start()


def test_a_refusal_crosses_processes_whole() -> None:
    error = RequestError(503, "queue_full", "All 16 slots are in use.", retry_after=3)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (RequestError, str(error), vars(error))


@pytest.mark.parametrize(("known", "found"), [(None, "0"), ("1", "1")])
def test_what_replicas_log_has_no_colours_in_a_file(
    known: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {name: value for name, value in os.environ.items() if name != "RAY_COLOR_PREFIX"}
    monkeypatch.setattr(os, "environ", others | ({"RAY_COLOR_PREFIX": known} if known else {}))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    set_environment(ReplicaConfig(1, 1))
    assert os.environ["RAY_COLOR_PREFIX"] == found


IMPORTS_RAY = ("replica.py", "deployment.py", "ports.py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_ray_is_imported_by_replicas_alone(path: Path) -> None:
    """Without replicas it need not be installed."""
    if path.parent.name == "replicas" and path.name in IMPORTS_RAY:
        return
    for node in ast.parse(path.read_text()).body:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.split(".")[0] in ("ray", "grpc")]
        ours = [name.split(".")[-1] for name in names if name.startswith("sam2_amg.replicas")]
        assert not {f"{name}.py" for name in ours} & set(IMPORTS_RAY)
