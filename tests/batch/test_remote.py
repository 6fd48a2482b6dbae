"""Images that running servers segment, against real servers that are busy, refuse, die and start again."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
import requests
from helpers import CPU, RunningServer, drawn_image, png, wait_until
from local_server import OWN, LocalServer, serving

from sam2_amg.answers.coco import annotations_of
from sam2_amg.answers.json_line import json_line
from sam2_amg.answers.options import Options, Segmented
from sam2_amg.answers.records import encode
from sam2_amg.answers.runs import Runs, uncompressed
from sam2_amg.batch.servers.client import records_of
from sam2_amg.batch.servers.pool import RemoteServer, Servers
from sam2_amg.batch.servers.segmenter import Answer, NoServerAnswers, RemoteError, RemoteSegmenter
from sam2_amg.config import Limits, Mode
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import PHOTOGRAPHS
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import build_generator
from sam2_amg.pipeline.base import Generator
from sam2_amg.server.access import Access
from sam2_amg.server.admission import Admission

DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()
SMALL = png(drawn_image(48, 64))


@pytest.fixture(scope="module")
def generator(small_model: Any) -> Generator:
    return build_generator(small_model, Mode.AO, OWN, CPU)


@pytest.fixture(scope="module")
def local(generator: Generator, decoders: DecoderPool) -> Iterator[LocalServer]:
    with serving(generator, decoders, Limits(decoders=1)) as running:
        yield running


def segment_all(segmenter: RemoteSegmenter, images: list[bytes], threads: int) -> list[Answer]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda pair: segmenter.segment(f"{pair[0]}.png", pair[1]), enumerate(images)))


@contextmanager
def answering(answers: Callable[[int], bytes | None]) -> Iterator[str]:
    """A server that sends bytes of its own to each connection, by its number, when it has read the request; nothing
    for None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for number in range(1000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    request = connection.recv(65536)
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(65536)
                    head, _, body = request.partition(b"\r\n\r\n")
                    length = int((head.lower() + b"\r\ncontent-length: 0").split(b"content-length: ")[1].split()[0])
                    while len(body) < length:
                        body += connection.recv(65536)
                    connection.sendall(answers(number) or b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def reply(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_answers_are_the_records_of_the_server(server: RunningServer) -> None:
    segmenter = RemoteSegmenter([server.url], {"pred_iou_thresh": "0.5"})
    for data, size in ((DOG, (534, 800)), (SMALL, (48, 64))):
        answer = segmenter.segment("image", data)
        url = f"{server.url}/segment?format=records&counts=compressed&pred_iou_thresh=0.5"
        expected = requests.post(url, files={"image": ("image", data)}, timeout=60).json()
        assert answer.records == expected
        assert [list(record) for record in answer.records] == [list(record) for record in expected]
        assert answer.size == size
        assert answer.milliseconds.keys() == {"receive", "decode", "queue", "segment", "answer"}
        assert answer.milliseconds["segment"] > 1
    assert len(segmenter.segment("dog.jpg", DOG).records) >= 3


def test_an_image_without_masks_has_its_size(server: RunningServer) -> None:
    answer = RemoteSegmenter([server.url + "/"], {"pred_iou_thresh": "1"}).segment("dog.jpg", DOG)
    assert (answer.records, answer.size) == ([], (534, 800))


def test_a_key_is_sent(generator: Generator, decoders: DecoderPool) -> None:
    with serving(generator, decoders, Limits(decoders=1)) as running:
        assert isinstance(running.front.handler, Admission)
        running.front.handler.access = Access(api_key="secret-secret-secret")
        keyed = RemoteSegmenter([running.url], {}, api_key="secret-secret-secret")
        assert keyed.describe()["model"] == "demo"
        assert keyed.segment("x", SMALL).size == (48, 64)
        for wrong in (None, "another-key-than-that"):
            with pytest.raises(StartupError, match="401 unauthorized"):
                RemoteSegmenter([running.url], {}, api_key=wrong).segment("x", SMALL)
            with pytest.raises(StartupError, match="401 unauthorized"):
                RemoteSegmenter([running.url], {}, api_key=wrong).describe()


def test_parameters_may_be_long(local: LocalServer) -> None:
    """Those that fit no query go into a form."""
    grids = str([[[round(0.1 + x / 4000, 5), 0.5] for x in range(400)]])
    asked = {"point_grids": grids, "pred_iou_thresh": "1"}
    with pytest.raises(RemoteError, match="point_grids") as caught:
        RemoteSegmenter([local.url], {**asked, "points_per_side": "2"}).segment("small.png", SMALL)
    assert caught.value.code == "invalid_parameter"
    answer = RemoteSegmenter([local.url], {**asked, "point_grids": "[[[0.5, 0.5]]]"}).segment("small.png", SMALL)
    assert answer.size == (48, 64)


@pytest.mark.parametrize("rows", [slice(2, 3), slice(1, 4), slice(0, 5)])
@pytest.mark.parametrize("columns", [slice(3, 4), slice(2, 6), slice(0, 7)])
def test_boxes_of_coco_become_those_of_sam2(rows: slice, columns: slice) -> None:
    mask = np.zeros((5, 7), bool)
    mask[rows, columns] = True
    flat = np.diff(mask.T.ravel().astype(int), prepend=0, append=0)
    runs = Runs(np.flatnonzero(flat == 1), np.flatnonzero(flat == -1))
    y, x = np.nonzero(mask)
    box = [float(x.min()), float(y.min()), float(x.max() - x.min()), float(y.max() - y.min())]
    record: Any = {
        "segmentation": uncompressed(runs, (5, 7)),
        "area": int(mask.sum()),
        "bbox": box,
        "predicted_iou": 0.9,
        "point_coords": [[3.0, 2.0]],
        "stability_score": 0.8,
        "crop_box": [0.0, 0.0, 7.0, 5.0],
    }
    image = Segmented([record], (5, 7), "x", Options(counts="compressed"))
    sent = orjson.loads(json_line(annotations_of(image)))
    assert records_of(sent) == orjson.loads(encode(image))


def test_every_image_is_answered_by_a_busy_server(generator: Generator, decoders: DecoderPool) -> None:
    with serving(generator, decoders, Limits(decoders=1, queue_size=1)) as running:
        segmenter = RemoteSegmenter([running.url], {}, per_server=4)
        images = [png(drawn_image(40, 50 + i)) for i in range(6)]
        answers = segment_all(segmenter, images, 4)
        refused = requests.get(f"{running.url}/metrics", timeout=10).text
    assert [answer.size for answer in answers] == [(40, 50 + i) for i in range(6)]
    assert 'status="503"' in refused, "the server was never busy"


def test_what_is_refused_is_an_error_of_the_image(local: LocalServer) -> None:
    segmenter = RemoteSegmenter([local.url], {})
    for data, code in ((b"no image", "not_an_image"), (b"", "empty_body"), (DOG[:20000], "truncated_image")):
        with pytest.raises(RemoteError) as caught:
            segmenter.segment("x", data)
        assert caught.value.code == code
        assert caught.value.message


def test_what_every_image_would_get_ends_the_job(local: LocalServer) -> None:
    with pytest.raises(StartupError, match="'no_such' does not exist"):
        RemoteSegmenter([local.url], {"no_such": "1"}).segment("x", SMALL)
    with pytest.raises(StartupError, match="404 not_found"):
        RemoteSegmenter([f"{local.url}/elsewhere"], {}).segment("x", SMALL)
    for url in ("127.0.0.1:5000", "ftp://host", "http://", "http://host:port", "http://host/?a=1"):
        with pytest.raises(StartupError, match="is no address of a server"):
            RemoteSegmenter([url], {})


_FORWARDER = """
import socket, sys, threading

def pump(source, sink):
    while data := source.recv(65536):
        sink.sendall(data)

listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@contextmanager
def forwarding(url: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that ends every connection when it is killed, as a server does, and starts sooner."""
    command = [sys.executable, "-c", _FORWARDER, url.rpartition(":")[2], str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.kill()
        process.communicate()


def test_all_images_are_answered_while_a_server_is_killed(local: LocalServer) -> None:
    with forwarding(local.url) as (first, victim), forwarding(local.url) as (second, survivor):
        segmenter = RemoteSegmenter([first, second], {}, per_server=2)
        images = [png(drawn_image(40, 50 + i)) for i in range(12)]

        def send(i: int) -> Answer:
            if i == 5:
                victim.kill()
            return segmenter.segment(f"{i}.png", images[i])

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, range(12)))
        assert victim.wait(10) == -9
        assert [answer.size for answer in answers] == [(40, 50 + i) for i in range(12)]
        survivor.kill()
        survivor.wait(10)
        with pytest.raises(NoServerAnswers, match=r"no server answers \(http://127"):
            RemoteSegmenter([first, second], {}, patience=1).segment("9.png", SMALL)


def test_a_server_that_comes_back_as_another_ends_the_job(
    local: LocalServer, small_model: Any, decoders: DecoderPool
) -> None:
    generator = build_generator(small_model, Mode.AO, replace(OWN, pred_iou_thresh=0.9), CPU)
    with (
        serving(generator, decoders, Limits(decoders=1)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        with forwarding(local.url) as (address, _):
            segmenter = RemoteSegmenter([address], {})
            segmenter.describe()
            assert segmenter.segment("1.png", SMALL).size == (48, 64)
        answer = pool.submit(segmenter.segment, "2.png", SMALL)  # there is no server
        wait_until(lambda: segmenter._servers.all[0].may_be_another)
        port = int(address.rpartition(":")[2])
        with forwarding(local.url, port):
            assert answer.result(30).size == (48, 64)
        answer = pool.submit(segmenter.segment, "3.png", SMALL)
        wait_until(lambda: segmenter._servers.all[0].may_be_another)
        with (
            forwarding(other.url, port),
            pytest.raises(StartupError, match=r"changed in pred_iou_thresh \(0.4 and 0.9"),
        ):
            answer.result(30)


def test_a_server_that_fails_is_left_alone_for_a_while() -> None:
    servers = Servers(["http://a", "http://b"], 2)
    first, second = servers.all

    def lend() -> RemoteServer:
        with servers.lend((), time.monotonic()) as server:
            return server

    with servers.lend((), time.monotonic()) as busy:
        assert busy is first
        assert lend() is second, "the least busy one is asked"
    servers.failed(first, "refused")
    assert [lend() for _ in range(3)] == [second] * 3
    servers.failed(second, "refused as well")
    with pytest.raises(NoServerAnswers, match=r"http://a: refused; http://b: refused as well"):
        lend()
    begun = time.monotonic()
    with servers.lend((), begun + 5) as server:
        assert server is first
    assert 0.2 < time.monotonic() - begun < 2


def test_the_free_server_is_asked_at_once_where_another_is_busy(local: LocalServer) -> None:
    """Retry-After of the one is no reason to wait for the other."""
    busy = reply(503, b'{"error": {"code": "queue_full", "message": "all slots"}}', "Retry-After: 20")
    with answering(lambda number: busy) as url:
        assert RemoteSegmenter([url, local.url], {}).segment("x", SMALL).size == (48, 64)


def test_retry_after_is_respected(local: LocalServer) -> None:
    busy = reply(503, b'{"error": {"code": "queue_full", "message": "all slots"}}', "Retry-After: 1")
    asked = f"{local.url}/segment?format=coco&counts=compressed"
    document = requests.post(asked, files={"image": ("x", SMALL)}, timeout=30)
    begun = time.monotonic()
    with answering(lambda number: reply(200, document.content) if number else busy) as url:
        assert RemoteSegmenter([url], {}).segment("x", SMALL).size == (48, 64)
    assert 1 <= time.monotonic() - begun < 5


def test_an_image_at_which_servers_end_is_an_error() -> None:
    """The connection ends at each POST, and /readyz says that all is well."""
    ready = reply(200, b'{"status": "ready"}')
    with answering(lambda number: ready if number == 3 else None) as url:
        segmenter = RemoteSegmenter([url], {})
        segmenter._retry = segmenter._retry.new(backoff_factor=0.01, backoff_jitter=0.0)
        with pytest.raises(RemoteError) as caught:
            segmenter.segment("poison.jpg", SMALL)
    assert caught.value.code == "no_answer"


def test_a_bug_of_the_server_is_tried_again_and_then_an_error() -> None:
    bug = reply(500, b'{"error": {"code": "internal_error", "message": "a bug"}}')
    counted = []
    with answering(lambda number: counted.append(number) or bug) as url:
        segmenter = RemoteSegmenter([url], {})
        segmenter._retry = segmenter._retry.new(backoff_factor=0.01, backoff_jitter=0.0)
        with pytest.raises(RemoteError, match="internal_error: a bug"):
            segmenter.segment("x", SMALL)
    assert counted == [0, 1, 2, 3]


def test_another_kind_of_server(local: LocalServer) -> None:
    with answering(lambda number: reply(200, b"<html>")) as url:
        with pytest.raises(StartupError, match="is no server of this kind"):
            RemoteSegmenter([url], {}).segment("x", SMALL)
        with pytest.raises(StartupError, match="is no server of this kind"):
            RemoteSegmenter([url], {}).describe()


def test_waiting_threads_end_with_the_job() -> None:
    busy = reply(503, b'{"error": {"code": "queue_full", "message": "all slots"}}', "Retry-After: 20")
    with answering(lambda number: busy) as url:
        segmenter = RemoteSegmenter([url], {})
        timer = threading.Timer(0.3, segmenter.close)
        timer.start()
        with pytest.raises(NoServerAnswers, match="the job ends"):
            segmenter.segment("x", SMALL)
        timer.join()


def test_servers_are_described(local: LocalServer, server: RunningServer) -> None:
    found = RemoteSegmenter([local.url], {"points_per_side": "3"}).describe()
    assert (found["model"], found["mode"]) == ("demo", "ao")
    assert found["parameters"]["pred_iou_thresh"] == OWN.pred_iou_thresh
    assert not {"points_per_side", "points_per_batch", "mask_memory_mib"} & found["parameters"].keys()
    assert "crop_n_layers" in found["parameters"]
    sure = RemoteSegmenter([server.url], {}).describe()
    assert len(sure["weights_sha256"]) == 64
    with pytest.raises(StartupError) as caught:
        RemoteSegmenter([server.url, local.url], {}).describe()
    assert f"{server.url} and {local.url} differ in weights_sha256 (" in str(caught.value)
    assert "pred_iou_thresh (0.6 and 0.4)" in str(caught.value)
    with pytest.raises(StartupError, match="points_per_side"):
        RemoteSegmenter([local.url], {"points_per_side": "1000"}).describe()
    with pytest.raises(NoServerAnswers, match="no server answers"):
        RemoteSegmenter(["http://127.0.0.1:9"], {}, patience=0).describe()
