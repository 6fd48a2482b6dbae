"""What tests share: places, photographs, generators, and servers as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from sam2.modeling.sam2_base import SAM2Base

from bench.harness.image_bombs import encoded
from bench.harness.worker import Job
from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import GeneratorConfig, Mode
from sam2_amg.demo import DEMO_DIR, PHOTOGRAPHS
from sam2_amg.modes.build import build_generator
from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from sam2_amg.pipeline.base import Generator, MaskRecord

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # where kernels run, or are interpreted
SHIPPED = DEMO_DIR / MODEL_TYPES["demo"].file  # the demo model's checkpoint
LENIENT = ("--pred_iou_thresh", "0.6", "--stability_score_thresh", "0.9")


def load_demo_model(device: torch.device) -> SAM2Base:
    return load_model(SHIPPED, MODEL_TYPES["demo"], device)


def build_compiled(mode: Mode, config: GeneratorConfig) -> Generator:
    generator = build_generator(load_demo_model(DEVICE), mode, config, DEVICE)
    built = count_compilations()
    generator.generate(drawn_image(30, 40))
    assert count_compilations() == built >= 4, "the first image compiled something"
    return generator


def photograph(name: str) -> NDArray[np.uint8]:
    return np.array(Image.open(PHOTOGRAPHS / f"{name}.jpg"))


def demo_job(images: Sequence[Path], **changes: Any) -> Job:
    """What a worker of the benchmark is told: the demo model on a CPU."""
    job = Job(
        system="",
        model_type="demo",
        weights="checkpoint",
        directory=str(DEMO_DIR),
        device="cpu",
        planted=False,
        points_per_side=32,
        images=[str(path) for path in images],
        repeats=1,
        startup_only=False,
        result="",
    )
    return replace(job, **changes)


def drawn_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A few coloured discs on a gradient, of any size, from a seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([x / width, y / height, np.full_like(x, 0.5)], axis=-1) * random.uniform(100, 255, 3)
    for _ in range(6):
        centre_y, centre_x = random.uniform(0, height), random.uniform(0, width)
        radius = random.uniform(0.1, 0.35) * max(height, width)
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2] = random.uniform(0, 255, 3)
    return image.astype(np.uint8)


def png(image: NDArray[np.uint8]) -> bytes:
    """The file of an image."""
    return encoded(image, "PNG")


def assert_error(response: requests.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["message"]


@dataclass
class RunningServer:
    """A server process, and where it listens."""

    process: subprocess.Popen[str]
    greeting: str
    url: str

    def post(self, path: str, data: bytes, timeout: float = 120) -> requests.Response:
        return requests.post(self.url + path, files={"image": ("image", data)}, timeout=timeout)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=60)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def start_server(
    *arguments: str, command: Sequence[str] = (sys.executable, "server.py"), folder: Path = ROOT
) -> RunningServer:
    """Starts `python server.py`, or another command, on a free port, and waits until it says where it is."""
    process = subprocess.Popen(
        [*command, *arguments, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    greeting = process.stdout.readline() + process.stdout.readline()
    address = re.search(r"http://\S+", greeting)
    if address is None:
        process.kill()
        raise AssertionError(f"the server did not start: {greeting!r}")
    return RunningServer(process, greeting, address[0])


def run_export(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python compile_export.py`."""
    command, env = [sys.executable, "compile_export.py", *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)


def processor_seconds(call: Callable[[], object], times: int = 3) -> float:
    """The least time of the processor of some calls: pauses for garbage, and other programs, only add to it."""

    def once() -> float:
        begun = time.thread_time()
        call()
        return time.thread_time() - begun

    return min(once() for _ in range(times))


def wait_until(condition, seconds: float = 30) -> None:
    """Waits for a condition, and fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _source(record: MaskRecord) -> tuple[Any, ...]:
    """What a mask was found by: masks of one point differ in their predicted IoU."""
    return record["crop_box"], record["point_coords"], record["predicted_iou"]


def assert_all_but_equal(records: list[MaskRecord], expected: list[MaskRecord]) -> None:
    """The same masks, in the same order, but for the last bits of sums that are made in another order: masks to an IoU
    of 0.9998 or a pixel, which of fewer than 5,000 is more.

    Masks whose predicted IoUs differ by no more may change places.
    """
    assert [record["predicted_iou"] for record in records] == pytest.approx(
        [twin["predicted_iou"] for twin in expected], abs=2e-5
    )
    for record, twin in zip(sorted(records, key=_source), sorted(expected, key=_source), strict=True):
        assert record["point_coords"] == twin["point_coords"]
        assert record["crop_box"] == twin["crop_box"]
        assert record["predicted_iou"] == pytest.approx(twin["predicted_iou"], abs=2e-5)
        assert record["stability_score"] == pytest.approx(twin["stability_score"], abs=1e-3)
        size = record["segmentation"]["size"]
        runs = [coco_mask.frPyObjects(dict(one["segmentation"]), *size) for one in (record, twin)]
        iou = coco_mask.iou([runs[0]], [runs[1]], [0])[0, 0]
        different = (record["area"] + twin["area"]) * (1 - iou) / (1 + iou)  # pixels
        assert iou >= 0.9998 or different < 1.5, f"{different:.0f} of {twin['area']} pixels"


def shares_with_partners(found: list[MaskRecord], expected: list[MaskRecord], iou: float) -> tuple[float, float]:
    """Of what was found, and of what was expected, the share of masks that have one of at least this IoU opposite."""
    sides = [
        [coco_mask.frPyObjects(dict(one["segmentation"]), *one["segmentation"]["size"]) for one in records]
        for records in (found, expected)
    ]
    overlap = coco_mask.iou(*sides, [0] * len(expected))  # [found, expected]
    return (overlap.max(1) >= iou).mean(), (overlap.max(0) >= iou).mean()
