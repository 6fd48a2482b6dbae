"""What goes wrong in the generator, on the device and in threads: who is told what, and how the process ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from engine_doubles import GatedGenerator, TogetherGenerator, ask, image
from helpers import CPU, ROOT, assert_all_but_equal, photograph, wait_until
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import RequestError
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator, MaskRecord, PendingResult
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.server.app import create_app
from sam2_amg.server.engine import Engine
from sam2_amg.server.failure import DEVICE_FAILED, JOB_STUCK, WORKER_DIED, Failure
from sam2_amg.server.segmenting import local_desk
from sam2_amg.server.worker import GeneratorExitedError

CUDA = torch.device("cuda")
TOO_MUCH = 1 << 50  # elements, which no machine has room for


class RaisingGenerator(GatedGenerator):
    """Raises what it is given, an error an image, and answers when there is none left."""

    def __init__(self, *errors: BaseException, device: BaseException | None = None) -> None:
        super().__init__()
        self.gate.set()
        self.errors = list(errors)
        self.device_error = device
        self.looks = 0

    def generate(self, image: NDArray[np.uint8], config: Any = None) -> list[MaskRecord]:
        records = super().generate(image, config)
        if self.errors:
            raise self.errors.pop(0)
        return records

    def require_device(self) -> None:
        self.looks += 1
        if self.device_error is not None:
            raise self.device_error


def refusal(engine: Engine, value: int = 1) -> RequestError:
    with pytest.raises(RequestError) as refused:
        ask(engine, value)
    return refused.value


def fail_encoding(generator: Generator, times: int) -> list[int]:
    """Has the encoder run out of memory, really, so many times; answers a list with an entry for each call."""
    assert isinstance(generator, MaskGenerator)
    encode, calls = generator.stages.encode, []

    def encode_or_not(pixels: torch.Tensor) -> Any:
        calls.append(len(pixels))
        if len(calls) <= times:
            torch.empty(TOO_MUCH, device=pixels.device)
        return encode(pixels)

    generator.stages = replace(generator.stages, encode=encode_or_not)
    return calls


def test_after_a_lack_of_memory_the_second_try_answers(small_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    config = replace(demo_config, points_per_side=3)
    generator = build_generator(small_model, Mode.AO, config, CPU)
    photo = photograph("groceries")
    expected = generator.generate(photo)
    assert len(expected) >= 1
    calls = fail_encoding(generator, times=1)
    engine = Engine(generator, Limits())
    with engine.slot():
        assert_all_but_equal(engine.generate(photo), expected)
    assert calls == [1, 1]
    assert engine.is_alive
    engine.close()


def test_a_lack_of_memory_that_stays_is_told_and_the_next_image_is_answered(
    small_model: SAM2Base, demo_config: GeneratorConfig
) -> None:
    generator = build_generator(small_model, Mode.AO, replace(demo_config, points_per_side=2), CPU)
    calls = fail_encoding(generator, times=2)
    engine = Engine(generator, Limits())
    photo = photograph("groceries")
    with pytest.raises(RequestError) as refused:
        engine.generate(photo)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "out_of_memory", 5)
    assert len(calls) == 2
    assert engine.generate(photo) == generator.generate(photo)
    assert engine.is_ready
    engine.close()


def test_over_http_a_lack_of_memory_says_when_to_come_again(decoders: DecoderPool) -> None:
    generator = RaisingGenerator(MemoryError(), MemoryError())
    engine = Engine(generator, Limits())
    client = create_app(ServerConfig(ModelConfig(ROOT, "demo")), local_desk(engine, decoders)).test_client()
    with EXAMPLE.open("rb") as file:
        answer = client.post("/upload_rle", data={"image": file})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "out_of_memory")
    assert answer.headers["Retry-After"] == "5"
    assert generator.started == 2
    engine.close()


def test_of_images_encoded_together_one_more_lack_of_memory_is_tried_alone() -> None:
    class FullGenerator(TogetherGenerator):
        def encode(self, images: Any) -> Any:
            super().encode(images)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    generator = FullGenerator()
    engine = Engine(generator, Limits())
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, engine, 1)]
        wait_until(lambda: generator.running == 1)
        asked += [pool.submit(ask, engine, value) for value in (2, 3)]
        wait_until(lambda: engine.waiting == 2)
        generator.gate.set()
        assert [one.result(30) for one in asked] == [1, 2, 3]
    assert len(generator.encoded) == 1
    engine.close()


def test_memory_that_runs_out_while_records_are_made() -> None:
    class LateGenerator(GatedGenerator):
        def segment(self, image: NDArray[np.uint8], features: object = None, config: object = None) -> PendingResult:
            def finish() -> list[MaskRecord]:
                raise errors.pop(0)

            return finish

    errors = [MemoryError(), SystemExit(3)]
    engine = Engine(LateGenerator(), Limits())
    assert refusal(engine).code == "out_of_memory"
    with pytest.raises(GeneratorExitedError, match="SystemExit"):
        ask(engine, 1)
    engine.close()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
def test_what_would_end_a_thread_ends_a_request(error: BaseException, decoders: DecoderPool) -> None:
    generator = RaisingGenerator(error)
    engine = Engine(generator, Limits())
    client = create_app(ServerConfig(ModelConfig(ROOT, "demo")), local_desk(engine, decoders)).test_client()
    with EXAMPLE.open("rb") as file:
        answer = client.post("/upload_rle", data={"image": file})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "internal_error")
    assert generator.errors == []  # it was raised
    assert ask(engine, 2) == 2
    assert engine.close(5)
    assert engine.failure is None


STICKY = [
    torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...", 710),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Triton Error [CUDA]: unspecified launch failure"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
]


@pytest.mark.parametrize("error", STICKY, ids=str)
def test_a_useless_device_is_told_to_everybody(error: Exception, decoders: DecoderPool) -> None:
    """Health says so at once, and whoever waits is answered at once."""
    told: list[Failure] = []
    generator = RaisingGenerator(error, device=error)
    generator.gate.clear()
    engine = Engine(generator, Limits(), told.append)
    client = create_app(ServerConfig(ModelConfig(ROOT, "demo")), local_desk(engine, decoders)).test_client()
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(refusal, engine, value) for value in (1, 2, 3)]
        wait_until(lambda: engine.waiting == 2)
        generator.gate.set()
        refused = [*(one.result(5) for one in asked), refusal(engine)]
    for one in refused:
        assert (one.status, one.code, one.retry_after) == (503, "failed", 10)
    assert generator.started == 1
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "failed")
        assert str(error).splitlines()[0] in answer.get_json()["error"]["message"]
        assert answer.headers["Retry-After"] == "10"
    assert [failure.exit_status for failure in told] == [DEVICE_FAILED]
    assert engine.failure is told[0]
    engine.close(1)


@pytest.mark.parametrize("error", [*STICKY, ValueError("NaN or infinity")], ids=str)
def test_an_error_that_the_device_survives_is_its_callers_alone(error: Exception) -> None:
    generator = RaisingGenerator(error)
    engine = Engine(generator, Limits())
    with pytest.raises(type(error)):
        ask(engine, 1)
    assert generator.looks == 1
    assert ask(engine, 2) == 2
    assert engine.is_ready
    engine.close()


def test_a_full_device_is_no_useless_device() -> None:
    """The tiny operation that looks at the device may not fit either."""
    engine = Engine(RaisingGenerator(ValueError("13"), device=torch.OutOfMemoryError("CUDA out of memory.")), Limits())
    with pytest.raises(ValueError, match="13"):
        ask(engine, 1)
    assert engine.is_ready
    engine.close()


def test_a_job_that_does_not_end() -> None:
    told: list[Failure] = []
    generator = GatedGenerator()
    engine = Engine(generator, Limits(stuck_timeout=0.3), told.append)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(refusal, engine, 1)]
        wait_until(lambda: generator.running == 1)
        asked.append(pool.submit(refusal, engine, 2))
        wait_until(lambda: engine.waiting == 1)
        assert engine.is_ready
        assert [one.result(10).code for one in asked] == ["failed", "failed"]
    assert "--stuck_timeout" in refusal(engine).message
    assert not engine.is_alive
    assert [failure.exit_status for failure in told] == [JOB_STUCK]
    assert not engine._queue._open  # nothing holds their images
    generator.gate.set()
    engine.close(1)


def test_a_job_may_take_ten_times_the_slowest_so_far() -> None:
    class SlowGenerator(GatedGenerator):
        def generate(self, image: NDArray[np.uint8], config: Any = None) -> list[MaskRecord]:
            time.sleep(float(image[0, 0, 0]) / 100)
            return super().generate(image, config)

    generator = SlowGenerator()
    generator.gate.set()
    engine = Engine(generator, Limits(stuck_timeout=0.2))
    assert ask(engine, 10) == 10
    assert engine._pace.slowest_step >= 0.1
    assert ask(engine, 60) == 60  # three times the limit, six times the slowest
    assert engine.failure is None
    engine.close()


def test_who_asks_for_more_prompts_has_more_time() -> None:
    generator = GatedGenerator()
    engine = Engine(generator, Limits(stuck_timeout=0.1))
    config = replace(generator.config, points_per_side=generator.config.points_per_side * 8)
    with ThreadPoolExecutor(1) as pool, engine.slot():
        asked = pool.submit(engine.generate, image(3), None, config)
        time.sleep(0.4)
        assert engine.failure is None
        generator.gate.set()
        assert asked.result(10)[0]["area"] == 3
    assert engine.close()


def test_waiting_is_not_being_worked_on() -> None:
    engine = Engine(GatedGenerator(), Limits(stuck_timeout=0.1))
    time.sleep(0.3)
    assert engine.is_ready
    engine.close()


def kill_worker(engine: Engine) -> None:
    """Has something raise in the worker outside the generator's calls."""

    def broken(_most: Callable[[], int]) -> Any:
        raise ReferenceError("a bug")

    engine._queue.take = broken  # type: ignore[method-assign]
    with engine.slot():
        engine.generate(image(1))


def test_a_dead_worker() -> None:
    told: list[Failure] = []
    generator = GatedGenerator()
    engine = Engine(generator, Limits(), told.append)
    with ThreadPoolExecutor(2) as pool:
        killing = pool.submit(kill_worker, engine)
        wait_until(lambda: generator.running == 1)
        waiting = pool.submit(refusal, engine, 2)
        wait_until(lambda: engine.waiting == 1)
        generator.gate.set()
        killing.result(10)
        assert waiting.result(10).code == "failed"
    assert refusal(engine).code == "failed"
    assert "ReferenceError" in refusal(engine).message
    assert [failure.exit_status for failure in told] == [WORKER_DIED]
    engine.close(1)


def test_a_worker_that_ends_without_a_word_is_noticed() -> None:
    engine = Engine(GatedGenerator(), Limits(stuck_timeout=0.5))
    dead = threading.Thread(target=lambda: None)
    dead.start()
    dead.join()
    assert engine.is_ready
    engine._workers[0].is_alive = dead.is_alive  # type: ignore[method-assign]
    wait_until(lambda: engine.failure is not None)
    assert engine.failure is not None
    assert engine.failure.exit_status == WORKER_DIED
    engine.close(1)


STATUSES = {"device": DEVICE_FAILED, "stuck": JOB_STUCK, "worker": WORKER_DIED}


def address_in(path: Path) -> str | None:
    """The address in what a server printed, once it is there."""
    found = re.search(r"on (http://\S+)\n", path.read_text()) if path.exists() else None
    return found[1] if found else None


def test_a_server_process_ends_with_a_status_of_its_own(tmp_path: Path) -> None:
    """Real servers, whose generators raise, hang in C code, or take the worker thread along."""
    command = [sys.executable, str(ROOT / "tests" / "server" / "broken_servers.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for name in STATUSES:
            wait_until(lambda name=name: address_in(tmp_path / f"{name}.out"), 60)
        for name in STATUSES:
            url = address_in(tmp_path / f"{name}.out")
            assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
            with EXAMPLE.open("rb") as file:
                answer = requests.post(f"{url}/upload_rle", files={"image": file}, timeout=10)
            if name == "worker":  # its last answer is right
                assert answer.json() == {}
                wait_until(lambda url=url: requests.get(f"{url}/healthz", timeout=10).status_code == 503, 2)
            else:
                assert answer.json()["error"]["code"] == "failed"
            health = requests.get(f"{url}/healthz", timeout=10)
            assert (health.status_code, health.json()["error"]["code"]) == (503, "failed")
        output, _ = process.communicate(timeout=10)
    assert {name: int(status) for name, status in map(str.split, output.splitlines())} == STATUSES
    for name, status in STATUSES.items():
        assert f"This process ends with status {status}" in (tmp_path / f"{name}.log").read_text()


@pytest.mark.gpu
def test_on_a_gpu_a_lack_of_memory_is_told_and_passes(demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    generator = build_generator(deepcopy(demo_model).to(CUDA), Mode.AO, demo_config, CUDA)
    photo = photograph("dog")
    expected = generator.generate(photo)
    engine = Engine(generator, Limits())
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        torch.cuda.memory_allocated() / torch.cuda.get_device_properties(CUDA).total_memory
    )
    try:
        with pytest.raises(RequestError) as refused:
            engine.generate(photo)
        assert refused.value.code == "out_of_memory"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_all_but_equal(engine.generate(photo), expected)
    assert engine.is_ready
    engine.close()


@pytest.mark.gpu
def test_a_device_side_assert_ends_the_process() -> None:
    program = """
        import time, torch
        import numpy as np
        from sam2_amg.config import GeneratorConfig, Limits
        from sam2_amg.errors import RequestError
        from sam2_amg.pipeline.base import Generator
        from sam2_amg.pipeline.device_errors import require_device
        from sam2_amg.server.engine import Engine
        from sam2_amg.server.failure import end_process

        cuda = torch.device("cuda")

        class Asserting(Generator):
            config = GeneratorConfig()
            def generate(self, image, config=None):
                return torch.zeros(3, device=cuda)[torch.tensor([7], device=cuda)].tolist()
            def require_device(self):
                require_device(cuda)

        engine = Engine(Asserting(), Limits(), end_process)
        try: engine.generate(np.zeros((1, 1, 3), np.uint8))
        except RequestError as error: assert error.code == "failed", error
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert answer.returncode == DEVICE_FAILED, answer.stderr
