"""A server that is starting says so, to everybody, and then is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from conftest import CPU, ROOT, drawn_image
from sam2.modeling.sam2_base import SAM2Base

from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig, ServerConfig
from sam2_amg.engine import Engine
from sam2_amg.http import create_app
from sam2_amg.pipeline import MaskGenerator
from sam2_amg.render import encode_png
from sam2_amg.stages import build_generator
from sam2_amg.warm_up import warm_up


def test_until_there_is_a_generator_it_says_what_is_going_on(demo_model: SAM2Base, few_points: GeneratorConfig) -> None:
    engine = Engine(None, Limits())
    client = create_app(ServerConfig(ModelConfig(ROOT, "demo"), few_points), engine).test_client()
    engine.report("compiling encode for cpu")
    upload = {"image": (ROOT / "demo" / "photographs" / "dog.jpg").open("rb")}
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
    engine.open(build_generator(demo_model, Mode.AO, few_points, CPU))
    assert client.get("/readyz").get_json() == {"status": "ready"}
    assert client.get("/info").get_json()["ready"] is True
    engine.close()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 503


def test_an_engine_that_never_opened_closes() -> None:
    engine = Engine(None, Limits())
    engine.close()
    assert not engine.is_alive


@pytest.mark.parametrize("mode", [Mode.BASELINE, Mode.AO])
def test_a_first_image_reaches_every_stage(mode: Mode, demo_model: SAM2Base, demo_config: GeneratorConfig) -> None:
    generator = build_generator(demo_model, mode, demo_config, CPU)
    reached = []
    if isinstance(generator, MaskGenerator):
        stages = generator.stages
        for name in ("preprocess", "encode", "measure", "suppress", "encode_rle"):
            function = getattr(stages, name)

            def noted(*arguments, name=name, function=function):
                result = function(*arguments)
                reached.append((name, len(result) if name == "encode_rle" else 1))
                return result

            object.__setattr__(stages, name, noted)
    warm_up(generator, drawn_image(90, 120), CPU)
    if mode is Mode.AO:
        assert [name for name, _ in reached] == ["preprocess", "encode", "measure", "suppress", "encode_rle"]
        assert min(count for _, count in reached) >= 1  # there were masks to encode


def test_over_http_from_the_first_moment(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "server.py", "--points_per_side", "2", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ})
    try:
        seen = []
        deadline = time.monotonic() + 120
        while not seen or seen[-1].status_code != 200:
            assert time.monotonic() < deadline
            assert process.poll() is None
            try:
                seen.append(requests.get(url + "/readyz", timeout=60))
            except requests.ConnectionError:
                time.sleep(0.01)
        assert {answer.status_code for answer in seen} == {200, 503}
        assert seen[0].json()["error"]["message"].startswith("Not ready yet: ")
        image = encode_png(np.full((20, 30, 3), 128, np.uint8))
        answer = requests.post(url + "/upload_rle", files={"image": image}, timeout=60)
        assert answer.status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) == 0
