"""One system in a process of its own: serves over HTTP until told to stop, and then times generate() by itself.

Started by `python -m bench`. Says "READY port" on standard output once it has answered a warm-up image.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.harness.case import Case
from bench.harness.planted import plant
from bench.harness.profiler import profile_generate
from bench.harness.systems import SYSTEMS, System
from bench.harness.timing import StageClock
from bench.harness.weights import get_model
from sam2_amg.compilation.jit import count_compilations
from sam2_amg.config import GeneratorConfig, Limits, Mode, ModelConfig, ServerConfig
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.modes.warmup import keep_from_garbage_collection
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.host_memory import give_back_memory, use_huge_pages, use_one_heap
from sam2_amg.server.access import Access
from sam2_amg.server.admission import Admission
from sam2_amg.server.app import create_app
from sam2_amg.server.engine import Engine
from sam2_amg.server.front import Front
from sam2_amg.server.listen import bind, drain_on_signals
from sam2_amg.server.replies import json_line
from sam2_amg.server.segmenting import local_desk
from sam2_amg.server.status import describe

LIMITS = Limits(queue_size=64)


@dataclass(frozen=True)
class Job:
    """What a worker is told, as JSON in its first argument."""

    system: str
    model_type: str
    weights: str
    directory: str
    device: str
    planted: bool
    points_per_side: int
    images: list[str]
    repeats: int
    startup_only: bool
    result: str
    profile: bool = False
    batch_size: int = 1  # of modes that encode images together


def build(job: Job) -> tuple[Generator, StageClock, int]:
    """The system's generator, the clock that is in it, and how many bytes of planted outputs lie on the device."""
    device = torch.device(job.device)
    model = get_model(job.weights, Path(job.directory), job.model_type, device)
    config = GeneratorConfig(points_per_side=job.points_per_side)
    planted = plant(job.points_per_side, model.image_size // 4, device) if job.planted else None
    clock = StageClock(device)
    case = Case(model, job.model_type, config, device, clock, planted, job.batch_size)
    return SYSTEMS[job.system].build(case), clock, planted.nbytes if planted else 0


def describe_peer(system: System, info: dict[str, Any]) -> dict[str, Any]:
    """What /info answers where the generator is somebody else's."""
    own = {key: value for key, value in info.items() if key != "agreement"}
    return {**own, "mode": None, "peer": f"{system.name}: {system.what}"}


def serve(job: Job, generator: Generator, decoders: DecoderPool) -> None:
    """Serves on a free port of the loopback address until a signal drains it, with the product's own server."""
    system = SYSTEMS[job.system]
    mode = system.mode or Mode.BASELINE  # a peer is no mode, and /info is all that reads it
    model = ModelConfig(Path(job.directory), job.model_type, mode, job.device, batch_size=generator.batch_size)
    config = ServerConfig(model, generator.config, LIMITS)
    engine = Engine(generator, LIMITS)
    sock = bind("127.0.0.1", 0)
    desk = local_desk(engine, decoders)
    app = create_app(config, desk)
    if system.mode is None:
        app.view_functions["info"] = lambda: json_line(describe_peer(system, describe(config, engine)))
    front = Front(Admission(app, desk, LIMITS, Access(), sock.getsockname()), sock, LIMITS)
    drain_on_signals(front.drain)
    decoders.warm_up(EXAMPLE.read_bytes())
    print(f"READY {sock.getsockname()[1]}", flush=True)
    front.run()
    engine.close()
    decoders.close()


def time_generate(job: Job, generator: Generator, clock: StageClock) -> dict[str, Any]:
    """Milliseconds of generate(), image by image, `repeats` times; then, apart from that, of what is inside."""
    images, decode_ms = [], []
    for path in job.images:
        data, times = Path(path).read_bytes(), []
        for _ in range(job.repeats):
            started = time.perf_counter()
            image = decode_image(data, LIMITS)
            times.append((time.perf_counter() - started) * 1e3)
        images.append(image)
        decode_ms.append(statistics.median(times))
    rows: list[list[float]] = [[] for _ in images]
    for _ in range(job.repeats):
        for row, image in zip(rows, images, strict=True):
            started = time.perf_counter()
            generator.generate(image)
            row.append((time.perf_counter() - started) * 1e3)
    clock.on = True
    inside = []
    for image in images:
        started = time.perf_counter()
        generator.generate(image)
        total = (time.perf_counter() - started) * 1e3
        stages = clock.read()
        inside.append({**stages, "other": max(0.0, total - sum(stages.values()))})
    names = {name for stages in inside for name in stages}
    return {
        "per_image": [
            {
                "image": Path(path).name,
                "height_width": list(image.shape[:2]),
                "ms": [round(value, 2) for value in row],
                "decode_ms": round(decoding, 2),
            }
            for path, image, row, decoding in zip(job.images, images, rows, decode_ms, strict=True)
        ],
        "median_ms": round(statistics.median([value for row in rows for value in row]), 2),
        "stages_ms": {
            "decode": round(statistics.median(decode_ms), 2),
            **{
                name: round(statistics.median([stages.get(name, 0.0) for stages in inside]), 2)
                for name in sorted(names)
            },
        },
    }


def peak_resident_mib() -> int:
    """The most resident memory of this process. (getrusage would count what its parent had before it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1024)


def end_with_parent() -> None:
    """Ends this process once the one that started it is gone, however that ended: standard input is a pipe from it, in
    which nothing comes."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> None:
    """Runs the job that the first argument describes."""
    end_with_parent()
    job = Job(**json.loads(sys.argv[1]))
    use_one_heap()
    use_huge_pages()
    decoders = DecoderPool(LIMITS)  # as the server does, while the model loads
    generator, clock, ballast = build(job)
    warm_up = decode_image(Path(job.images[0]).read_bytes(), LIMITS)
    generator.generate(warm_up)
    compilations = count_compilations()
    keep_from_garbage_collection()
    give_back_memory()
    serve(job, generator, decoders)
    if job.startup_only:
        return
    timing = time_generate(job, generator, clock)
    cuda = job.device == "cuda"
    result: dict[str, Any] = {
        "batch_size": generator.batch_size,
        "points_per_batch": generator.config.points_per_batch,
        "generate": timing,
        "peak_device_mib": round((torch.cuda.max_memory_allocated() - ballast) / 2**20) if cuda else None,
        "held_device_mib": round((torch.cuda.max_memory_reserved() - ballast) / 2**20) if cuda else None,
        "peak_rss_mib": peak_resident_mib(),
        "recompiles": count_compilations() - compilations,
    }
    if job.profile:
        clock.on = False
        pairs = zip(job.images, timing["per_image"], strict=True)
        path, _ = max(pairs, key=lambda pair: math.prod(pair[1]["height_width"]))
        result["profile"] = profile_generate(
            generator, decode_image(Path(path).read_bytes(), LIMITS), Path(path).name, cuda
        )
    Path(job.result).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
