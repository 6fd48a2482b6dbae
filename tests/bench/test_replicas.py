"""What is made of measurements with replicas, and clients against a real server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import photograph, png

from bench.front import medians
from bench.harness.batch_process import ends_of, rate
from bench.harness.clients import Clients, Load, figures_of
from bench.harness.failures import WorkerFailed
from bench.harness.instant import ANSWER, InstantBackend
from bench.report.docs import tables_of
from bench.report.pages import write
from bench.report.replicas import draw_scale, front_markdown, scale_markdown
from bench.scale import hand_over, verdict, with_times
from sam2_amg.config import ModelConfig, ServerConfig
from sam2_amg.demo import DEMO_DIR
from sam2_amg.server.listen import bind
from sam2_amg.server.startup import make_front

_HOST = {"device": "a GPU", "cores": 2, "torch": "2", "python": "3"}


@contextmanager
def instant_server() -> Iterator[int]:
    """The port of a server that answers at once, in this process."""
    config = ServerConfig(ModelConfig(DEMO_DIR, "demo"))
    backend = InstantBackend(config)
    sock = bind("127.0.0.1", 0)
    front = make_front(config, backend.desk, sock)
    backend.start()
    thread = threading.Thread(target=front.run)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        front.drain()
        thread.join(30)
        backend.desk.engine.close(5)


def test_clients_measure_a_server_that_answers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(photograph("dog")[:40, :60]))
    with instant_server() as port:
        load = Load(port, os.getpid(), [str(path)] * 2, clients=2, seconds=0.3, warm_up=0.1)
        found = Clients(load).run()
        assert found["images"] > 2
        assert len(found["p50_by_image"]) == 2
        assert 0 < found["cpu_ms_an_image"] < 1000
        missing = Load(port, os.getpid(), [str(path)], 1, 0.3, 0.0, "/nothing")
        with pytest.raises(WorkerFailed, match=r"^status 404: .*not_found"):
            Clients(missing).run()
    json.loads(ANSWER.data)
    assert len(ANSWER.data) == 30_000


def test_figures_need_an_answer_for_every_file() -> None:
    answers = [(0.5, 10.0, 0), (0.9, 30.0, 1), (1.0, 20.0, 0)]
    found = figures_of(answers, 2.0, 0.3, 2)
    assert (found["images_per_second"], found["p50"], found["p50_by_image"]) == (1.5, 20.0, [15.0, 30.0])
    assert (found["cpu_ms_an_image"], found["cpu_share"]) == (100.0, 0.15)
    with pytest.raises(WorkerFailed, match="--seconds"):
        figures_of(answers[::2], 2.0, 0.3, 2)


def test_a_rate_is_that_of_all_devices_at_work() -> None:
    late = [100.0, 101.0, 102.0]  # two devices, the second of which starts 3 s after the first
    together = [103.0, 103.1, 104.0, 104.1, 105.0, 105.1, 106.0]
    assert rate([*late, *together, 106.1], devices=2, size=50) == pytest.approx(100)
    assert rate([*late, 103.0], devices=1, size=50) == 50
    with pytest.raises(WorkerFailed, match="--batch_images"):
        rate([100.0, 101.0], devices=2, size=50)


def test_only_shards_end(tmp_path: Path) -> None:
    for moment, name in enumerate(("inputs-0000.jsonl", "000000.jsonl", "000001.jsonl", "manifest.json")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (moment, moment))
    assert ends_of(tmp_path) == [1, 2]


def a_row(replicas: int, images_per_second: float, lone: float | None = None) -> dict[str, Any]:
    one = {"p50": lone, "p50_by_image": [lone, lone + 10]} if lone else None
    figures = {"p50": 20.0, "p99": 40.0, "cpu_share": 0.2, "cpu_ms_an_image": 2.0, "ready_s": 30.0}
    return {
        "replicas": replicas,
        "clients": 16 * max(1, replicas),
        "images_per_second": images_per_second,
        "one_client": one,
        **figures,
    }


def test_replicas_are_held_against_the_faster_of_one_device() -> None:
    rows = with_times([a_row(0, 50, 20), a_row(1, 60, 23), a_row(2, 115)])
    assert [row["times"] for row in rows] == [0.833, 1.0, 1.917]
    assert hand_over(rows[0], rows[1]) == 3.0
    lines, held = verdict(rows, "cuda")
    assert held
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["held", "held"]
    slow = with_times([a_row(0, 50, 20), a_row(1, 60, 25), a_row(2, 113)])
    lines, held = verdict(slow, "cuda")
    assert not held
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["NOT held", "NOT held"]
    assert verdict(slow, "cpu") == ([], True)
    assert with_times([a_row(2, 113)])[0]["times"] is None


def test_more_replicas_have_demands_of_their_own() -> None:
    lines, held = verdict(with_times([a_row(1, 50), a_row(4, 190), a_row(8, 369)]), "cuda")
    assert lines == [
        "4 replicas at least 3.8 times as fast as one device (3.80): held",
        "8 replicas at least 7.4 times as fast as one device (7.38): NOT held",
    ]
    assert not held


def test_the_page_and_the_plot_of_replicas(tmp_path: Path) -> None:
    rows = with_times([a_row(0, 50, 20), a_row(1, 48, 23), a_row(2, 97)])
    result = {
        "what": "scale",
        "model": "large",
        "command": "c",
        "machine": _HOST,
        "mode": "furious",
        "points_per_side": 32,
        "weights": "seeded",
        "planted": True,
        "enlarged": True,
        "clients": 16,
        "rounds": 2,
        "seconds": 8,
        "rows": rows,
        "verdict": verdict(rows, "cuda")[0],
        "missing": {"4 replicas": "needs 4 GPUs; this host has 2"},
    }
    page = scale_markdown(json.loads(json.dumps(result)))
    assert "16 clients a replica send the sample photographs, and truck.jpg at 3.4 megapixels, in turn" in page
    first, second = tables_of(page)
    assert "| 2 replicas | 32 | 97.00 | 1.94 | 20.0 | 40.0 | - | 0.20 | 2.00 | 30 |" in first
    assert "| 4 replicas | needs 4 GPUs; this host has 2 |" in second
    draw_scale(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_the_front_tells_the_hand_over() -> None:
    def row(replicas: int, clients: int, p50: float, cpu: float) -> dict[str, Any]:
        found = {"images_per_second": 100.0, "p50": p50, "p99": 9.0, "cpu_ms_an_image": cpu, "cpu_share": 0.1}
        return {"replicas": replicas, "clients": clients, **medians([found] * 3), "rounds": [found] * 3}

    rows = [row(0, 16, 8, 1.25), row(2, 16, 16, 2.75), row(0, 1, 1.5, 1.0), row(2, 1, 4.0, 3.0)]
    result = {"command": "c", "machine": _HOST, "bytes": 300_000, "demanded_cpu_ms": 2.5, "rows": rows}
    page = front_markdown(result)
    assert "takes 1.50 ms of CPU an image from 16 clients, and 2.50 ms of a lone request" in page
    assert "not held (2.75 ms)" in page


def test_the_page_and_the_plot_of_batch_jobs(tmp_path: Path) -> None:
    rows = with_times([{"replicas": count, "images_per_second": 60.0 * max(1, count)} for count in (0, 1, 2)])
    model = {"model": "large", "command": "c", "machine": _HOST, "mode": "furious", "points_per_side": 32}
    measured = {"weights": "seeded", "planted": False, "enlarged": False, "rows": rows, "verdict": [], "missing": {}}
    write({"what": "scale-batch", **model, **measured}, tmp_path)
    (page,) = tmp_path.glob("scale-batch-*.md")
    assert "| 2 replicas | 120.00 | 2.00 |" in page.read_text()
    (plot,) = tmp_path.glob("scale-batch-*.png")
    assert plot.stat().st_size > 5_000
