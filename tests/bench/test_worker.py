"""The processes that are measured say what they are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import requests
from helpers import demo_job, drawn_image
from numpy.typing import NDArray
from PIL import Image

from bench.harness import worker
from bench.harness.load import Worker
from bench.harness.systems import SYSTEMS
from bench.harness.worker import describe_peer
from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.pipeline.base import Generator, MaskRecord
from sam2_amg.server.front import Front


class NoGenerator(Generator):
    config = GeneratorConfig()

    def generate(self, image: NDArray[np.uint8], config: GeneratorConfig | None = None) -> list[MaskRecord]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("system", "mode", "peer"),
    [
        ("baseline", "baseline", None),
        ("ao", "ao", None),
        ("torchao-64", None, "torchao-64: torchao 0.17.0, eager float32"),
    ],
)
def test_info_tells_the_mode_or_the_peer(
    system: str, mode: str | None, peer: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over real sockets, but in this process."""
    answers = []

    class AskedFront(Front):
        def run(self, give_up: Callable[[], None] = lambda: None) -> None:
            serving = threading.Thread(target=super().run)
            serving.start()
            port = capsys.readouterr().out.split("READY ")[1].strip()
            answers.append(requests.get(f"http://127.0.0.1:{port}/info", timeout=60).json())
            self.drain()
            serving.join(60)
            assert not serving.is_alive()

    monkeypatch.setattr(worker, "Front", AskedFront)
    monkeypatch.setattr(worker, "drain_on_signals", lambda server: None)
    worker.serve(demo_job([], system=system), NoGenerator(), DecoderPool(Limits(decoders=1)))
    (info,) = answers
    assert info["mode"] == mode
    assert info["model"] == "demo"
    assert info.get("peer") == peer


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["baseline", "ao"])
def test_info_of_a_process_tells_the_mode(mode: str, tmp_path: Path) -> None:
    Image.fromarray(drawn_image(30, 40)).save(tmp_path / "image.png")
    job = demo_job([tmp_path / "image.png"], system=mode, points_per_side=2, startup_only=True)
    process = Worker(job, tmp_path)
    process.wait_until_ready()
    info = requests.get(process.url + "/info", timeout=60).json()
    process.stop_serving()
    process.finish()
    assert info["mode"] == mode
    assert info["model"] == "demo"
    assert "peer" not in info


def test_a_peer_is_no_mode() -> None:
    info = describe_peer(SYSTEMS["torchao-64"], {"mode": "baseline", "device": "cuda", "agreement": {}})
    assert info == {"mode": None, "device": "cuda", "peer": "torchao-64: torchao 0.17.0, eager float32"}
    assert {name for name, system in SYSTEMS.items() if system.mode is None} == {
        "torchao-64",
        "torchao-1024",
        "torchao-tf32",
        "torchao-float16",
        "torchao-furious",
    }
