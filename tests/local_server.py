"""A server in this process: real HTTP, and parts that a test can look at."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from helpers import wait_until

from sam2_amg.config import GeneratorConfig, Limits, ModelConfig, ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import DEMO_DIR
from sam2_amg.pipeline.base import Generator
from sam2_amg.server.access import Access
from sam2_amg.server.admission import Admission
from sam2_amg.server.app import create_app
from sam2_amg.server.desk import Desk
from sam2_amg.server.engine import Engine
from sam2_amg.server.front import Front
from sam2_amg.server.listen import bind
from sam2_amg.server.segmenting import local_desk

OWN = GeneratorConfig(points_per_side=4, pred_iou_thresh=0.4, stability_score_thresh=0.75)
OPEN = Access()


@dataclass
class LocalServer:
    """A server's parts, and where it listens."""

    generator: Generator
    engine: Engine
    desk: Desk
    front: Front
    url: str


@contextmanager
def serving(
    generator: Generator,
    decoders: DecoderPool,
    limits: Limits,
    batch_size: int = 1,
    own: GeneratorConfig = OWN,
    access: Access = OPEN,
) -> Iterator[LocalServer]:
    """Serves in threads of this process, until the end of the context. `own` has the generator's parameters."""
    config = ServerConfig(ModelConfig(DEMO_DIR, "demo", batch_size=batch_size), own, limits)
    engine = Engine(generator, limits)
    desk = local_desk(engine, decoders)
    sock = bind("127.0.0.1", 0)
    address = sock.getsockname()
    app = create_app(config, desk)
    front = Front(Admission(app, desk, limits, access, address, config.bounds), sock, limits)
    try:
        with running(front, sock) as url:
            wait_until(lambda: requests.get(f"{url}/healthz", timeout=10).status_code == 200)
            yield LocalServer(generator, engine, desk, front, url)
    finally:
        assert engine.close(10)


@contextmanager
def running(front: Front, sock: socket.socket) -> Iterator[str]:
    """Runs the front of a bound socket in a thread, and drains it at the end: its address."""
    thread = threading.Thread(target=front.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        front.drain()
        thread.join(30)
        assert not thread.is_alive()
