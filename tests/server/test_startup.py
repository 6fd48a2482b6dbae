"""A server that is starting says so, to everybody, and then is ready."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from helpers import CPU, ROOT, drawn_image, start_server, wait_until
from sam2.modeling.sam2_base import SAM2Base

from bench.startup import free_port
from sam2_amg.answers.png import encode_png
from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import build_generator
from sam2_amg.modes.load import run_in_background
from sam2_amg.modes.warmup import warm_up
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.server.app import create_app
from sam2_amg.server.engine import Engine
from sam2_amg.server.segmenting import local_desk


def test_until_there_is_a_generator_it_says_what_is_going_on(
    demo_model: SAM2Base, few_points: GeneratorConfig, decoders: DecoderPool
) -> None:
    engine = Engine(None, Limits())
    client = create_app(ServerConfig(ModelConfig(ROOT, "demo"), few_points), local_desk(engine, decoders)).test_client()
    engine.report("compiling encode for cpu")
    upload = {"image": EXAMPLE.open("rb")}
    with upload["image"]:
        refused = client.post("/upload_rle", data=upload)
    for answer, code in ((client.get("/readyz"), "not_ready"), (refused, "starting")):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        error = answer.get_json()["error"]
        assert error["code"] == code
        assert "compiling encode for cpu" in error["message"]
    assert client.get("/healthz").status_code == 200  # nothing is wrong with it
    assert client.get("/info").get_json()["ready"] is False
    engine.set_generator(build_generator(demo_model, Mode.AO, few_points, CPU))
    assert client.get("/readyz").get_json() == {"status": "ready"}
    assert client.get("/info").get_json()["ready"] is True
    engine.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 503


def test_an_engine_that_never_opened_closes() -> None:
    engine = Engine(None, Limits())
    engine.close()
    assert not engine.is_alive


def test_a_first_image_reaches_every_stage(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    generator = build_generator(demo_model, Mode.AO, demo_config, CPU)
    assert isinstance(generator, MaskGenerator)
    reached: dict[str, int] = {}

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            result = function(*arguments)
            reached[name] = len(result) if name == "run_boundaries" else 1
            return result

        return noted

    names = ("preprocess", "encode", "mask_stats", "suppress", "run_boundaries")
    stages = generator.stages
    generator.stages = replace(stages, **{name: note(name, getattr(stages, name)) for name in names})
    warm_up(generator, drawn_image(90, 120), CPU)
    assert list(reached) == list(names)
    assert reached["run_boundaries"] >= 1  # there were masks to encode


def test_baseline_is_warmed_up_with_few_points(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    calls = []
    hook = demo_model.sam_mask_decoder.register_forward_hook(lambda _module, _inputs, out: calls.append(len(out[0])))
    try:
        warm_up(build_generator(demo_model, Mode.BASELINE, demo_config, CPU), drawn_image(90, 120), CPU)
    finally:
        hook.remove()
    assert calls == [4]


@contextmanager
def starting(*arguments: str, log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A server process on a free port, from its first moment, and its address."""
    port = free_port()
    with log.open("w") as file:
        command = [sys.executable, "server.py", *arguments, "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def answers_until(condition: Callable[[requests.Response], bool], url: str, process: subprocess.Popen) -> list[Any]:
    """What /readyz says, from the first answer until one that is waited for."""
    seen: list[requests.Response] = []
    deadline = time.monotonic() + 120
    while not seen or not condition(seen[-1]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        with suppress(requests.ConnectionError):
            seen.append(requests.get(url + "/readyz", timeout=60))
        time.sleep(0.01)
    return seen


def test_over_http_from_the_first_moment(tmp_path: Path) -> None:
    """The first image is the server's own, and no limit for others applies to it."""
    with starting("--points_per_side", "2", "--max_pixels", "1000", log=tmp_path / "log") as (process, url):
        seen = answers_until(lambda answer: answer.status_code == 200, url, process)
        assert {answer.status_code for answer in seen} == {200, 503}
        assert seen[0].json()["error"]["message"].startswith("Not ready yet: ")
        image = encode_png(np.full((20, 30, 3), 128, np.uint8))
        answer = requests.post(url + "/upload_rle", files={"image": image}, timeout=60)
        assert answer.status_code == 200
        process.terminate()
        assert process.wait(60) == 0


def test_a_signal_while_starting_ends_it(tmp_path: Path) -> None:
    with starting("--fast", "--compile_cache", str(tmp_path / "caches"), log=tmp_path / "log") as (process, url):
        answers_until(lambda answer: "compiling" in answer.text or answer.status_code == 200, url, process)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert (tmp_path / "caches" / "inductor").is_dir()
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("number", "moments"),
    [
        (signal.SIGTERM, range(3, 13, 3)),
        (signal.SIGINT, range(4, 13, 3)),
        pytest.param(signal.SIGTERM, range(3, 13), marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, range(3, 13), marks=pytest.mark.slow),
    ],
)
def test_a_signal_at_any_moment_before_ends_it_without_a_traceback(
    number: signal.Signals, moments: range, tmp_path: Path
) -> None:
    """While it imports, most of all: numpy and torch swallow what is raised within some imports."""
    command = [sys.executable, "server.py", "--device", "cpu", "--port", "0", "--points_per_side", "2"]
    for tenths in moments:
        log = tmp_path / f"{tenths}.log"
        with log.open("w") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file) as process:
            time.sleep(tenths / 10)
            process.send_signal(number)
            assert process.wait(timeout=30) in (-number, 128 + number)
        assert "Traceback" not in log.read_text()


def status_after_a_signal(program: str) -> int:
    """The exit status of a program that says `begun`, and gets SIGTERM then."""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=30)


def test_what_swallows_a_signal_ends_all_the_same() -> None:
    program = (
        "import time; from sam2_amg.process import signals; signals._GRACE = 0.5; signals.exit_on_signals()\n"
        "print('begun', flush=True)\n"
        "try: time.sleep(300)\n"
        "except SystemExit: time.sleep(300)"
    )
    assert status_after_a_signal(program) == 128 + signal.SIGTERM


@pytest.mark.gpu
@pytest.mark.parametrize("flags", [("--fast",), ("--fast", "--furious")], ids=" ".join)
def test_60_sizes_over_http_compile_nothing(flags: tuple[str, ...]) -> None:
    """What the server counts as compilations is the same before the first photograph and after the last, whether they
    come alone or several at a time."""
    server = start_server(*flags, "--points_per_side", "8", "--batch_size", "3")
    try:
        wait_until(lambda: server.get("/readyz").status_code == 200, seconds=300)
        before = server.get("/info").json()["compilations"]
        assert before >= 4
        sides = np.random.default_rng(2).integers(1, 2000, (58, 2)).tolist()
        sizes = [(1, 1), *sides, (2000, 30)]
        images = [encode_png(drawn_image(*size, seed)) for seed, size in enumerate(sizes)]
        for clients in (1, 6):
            with ThreadPoolExecutor(clients) as pool:
                answers = list(pool.map(lambda image: server.post("/upload_rle", image), images))
            for size, answer in zip(sizes, answers, strict=True):
                assert answer.status_code == 200
                assert all(mask["size"] == list(size) for mask in answer.json().values())
        assert server.get("/info").json()["compilations"] == before
    finally:
        assert server.stop() == 0
        assert server.process.stdout is not None
        server.process.stdout.close()


def test_what_runs_beside_hands_on_what_it_raises() -> None:
    assert run_in_background(lambda: None).result() is None
    with pytest.raises(StartupError, match="too old"):
        run_in_background(partial(fail_with, StartupError("the packages are too old"))).result()


def fail_with(error: Exception) -> None:
    raise error


def test_a_signal_ends_the_process_in_spite_of_what_runs_beside() -> None:
    program = (
        "import time; from sam2_amg.modes import load; from sam2_amg.process import signals; "
        "signals.exit_on_signals(); load.run_in_background(lambda: time.sleep(300)); "
        "print('begun', flush=True); time.sleep(300)"
    )
    assert status_after_a_signal(program) == 128 + signal.SIGTERM
