"""The processes that are measured say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from helpers import demo_job, drawn_image
from PIL import Image

from bench.harness.load import Worker
from bench.harness.systems import SYSTEMS
from bench.harness.worker import describe_peer


@pytest.mark.parametrize("mode", ["baseline", "ao"])
def test_info_tells_the_mode(mode: str, tmp_path: Path) -> None:
    Image.fromarray(drawn_image(30, 40)).save(tmp_path / "image.png")
    job = demo_job([tmp_path / "image.png"], system=mode, points_per_side=2, startup_only=True)
    worker = Worker(job, tmp_path)
    worker.wait_until_ready()
    info = requests.get(worker.url + "/info", timeout=60).json()
    worker.stop_serving()
    worker.finish()
    assert info["mode"] == mode
    assert info["model"] == "demo"
    assert "peer" not in info


def test_a_peer_is_no_mode() -> None:
    info = describe_peer(SYSTEMS["torchao-64"], {"mode": "baseline", "device": "cuda"})
    assert info == {"mode": None, "device": "cuda", "peer": "torchao-64: torchao 0.17.0, eager float32"}
    assert {name for name, system in SYSTEMS.items() if system.mode is None} == {
        "torchao-64",
        "torchao-1024",
        "torchao-furious",
    }
