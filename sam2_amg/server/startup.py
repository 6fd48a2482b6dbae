"""Server start-up: listen, load the model, compile, run a first image, then accept requests."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import threading
from functools import partial
from typing import Protocol

import torch

from sam2_amg.config import Limits, ServerConfig
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.modes.load import keep_compiled, load_generator
from sam2_amg.modes.warmup import keep_from_garbage_collection, memory_errors, warm_up
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.host_memory import give_back_memory
from sam2_amg.pipeline.pinned_memory import empty_pinned
from sam2_amg.process.logs import flush_log, use_format
from sam2_amg.process.program import prefix_for
from sam2_amg.process.signals import exit_on_signals
from sam2_amg.server.access import Access, is_loopback, read_key
from sam2_amg.server.admission import Admission
from sam2_amg.server.app import create_app
from sam2_amg.server.desk import Desk
from sam2_amg.server.engine import Engine
from sam2_amg.server.failure import end_process
from sam2_amg.server.front import Front
from sam2_amg.server.listen import bind, drain_on_signals
from sam2_amg.server.reception import Reception
from sam2_amg.server.segmenting import local_desk

logger = logging.getLogger(__name__)
_LAST_JOIN = 1.0  # seconds for workers to end, once the drain has run out of time


def load_and_warm_up(config: ServerConfig, engine: Engine) -> Generator:
    """The configured generator, after a first image in each of the engine's workers. Raises StartupError."""
    with memory_errors("--points_per_batch or --batch_size"):
        note = partial(setattr, engine, "weights")
        generator = load_generator(config.model, config.generator, engine.report, note)
        engine.report("running a first image")
        image = decode_image(EXAMPLE.read_bytes(), Limits())
        for _ in range(generator.workers):
            engine.start_worker(partial(warm_up, generator, image, torch.device(config.model.device)))
    return generator


def get_ready(config: ServerConfig, engine: Engine, decoders: DecoderPool) -> None:
    """Loads and compiles the model, and runs a first image; then the engine answers. Raises StartupError."""
    if config.compile_cache is not None:
        keep_compiled(config.compile_cache)
    generator = load_and_warm_up(config, engine)
    decoders.warm_up(EXAMPLE.read_bytes())
    keep_from_garbage_collection()
    give_back_memory()
    engine.set_generator(generator)


def greeting(config: ServerConfig, port: int) -> str:
    """The message printed when the server is ready: the address, and a curl command to try."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"http://{host}:{port}"
    example = shlex.quote(f"image=@{os.path.relpath(EXAMPLE)}")
    model = config.model
    return (
        f"Serving SAM 2.1 {model.model_type} (mode {model.mode.value}, {model.device}) on {address}\n"
        f"Try it:  curl -F {example} {address}/upload -o masks.png"
    )


def make_front(config: ServerConfig, desk: Desk, sock: socket.socket) -> Front:
    """The HTTP server on a bound socket. Raises StartupError if the API key cannot be read."""
    host, port = sock.getsockname()[:2]
    key = read_key(config.api_key_file) if config.api_key_file else None
    access = Access(key, config.cors_origin, is_loopback(host))
    if key is None and not access.is_loopback:
        logger.warning(
            "--host %s: whoever reaches this address may use the server; --api_key_file asks for a key", host
        )
    admission = Admission(create_app(config, desk), desk, config.limits, access, (host, port), config.bounds)
    return Front(admission, sock, config.limits)


class Backend(Protocol):
    """What makes the answers of a server."""

    desk: Desk

    def start(self) -> None:
        """Gets ready to answer. Raises StartupError."""
        ...

    def end(self) -> bool:
        """Ends, after all requests are answered or given up. False if a thread cannot end."""
        ...


class LocalBackend:
    """Makes answers in this process."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._decoders = DecoderPool(config.limits, empty_pinned)
        self._engine = Engine(None, config.limits, end_process)
        self.desk = local_desk(self._engine, self._decoders)

    def start(self) -> None:
        """Loads and compiles the model, and runs a first image."""
        get_ready(self._config, self._engine, self._decoders)

    def end(self) -> bool:
        """False in the middle of an image whose request was given up."""
        self._decoders.close()
        return not self._engine.live_workers


def stop(engine: Reception, front: Front) -> None:
    """Has the server end: /readyz says so at once."""
    engine.is_stopping = True
    front.drain()


def serve(config: ServerConfig, backend: Backend | None = None) -> None:
    """Starts the server, and runs it until a signal drains it. Without a `backend` this process makes the answers.

    It listens while the model loads and compiles, so that /readyz can report the phase. Raises StartupError if it
    cannot start, and leaves the socket open. Raises SystemExit if the HTTP server stops unexpectedly.
    """
    exit_on_signals()
    use_format(config.log_format)
    sock = bind(config.host, config.port)
    backend = backend or LocalBackend(config)
    engine = backend.desk.engine
    front = make_front(config, backend.desk, sock)
    give_up = partial(engine.close, 0)  # answers what waits with 503
    serving = threading.Thread(target=front.run, args=(give_up,), name="server", daemon=True)
    serving.start()
    backend.start()
    drain_on_signals(partial(stop, engine, front))
    print(greeting(config, sock.getsockname()[1]), flush=True)
    serving.join()
    if not front.is_draining:  # the thread's traceback is in the log
        raise SystemExit(f"{prefix_for('serve')}: error: the HTTP server stopped unexpectedly; start it again")
    engine.close(_LAST_JOIN if front.gave_up else None)
    has_ended = backend.end()
    if engine.failure:
        raise SystemExit(engine.failure.exit_status)
    if not has_ended:  # Python would wait for the thread
        flush_log()
        os._exit(0)
