"""From a configuration to a server that answers: it listens first, then loads, compiles, and runs a first image."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import torch

from sam2_amg.compilation.aot import file_names, from_packages
from sam2_amg.compilation.manifest import Build, check_packages
from sam2_amg.config import Limits, ServerConfig
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.demo import EXAMPLE
from sam2_amg.errors import StartupError
from sam2_amg.modes.build import MakeSubgraphs, build_generator, compile_mode, static_shapes
from sam2_amg.modes.warmup import keep_from_garbage_collection, memory_errors, warm_up
from sam2_amg.network.checkpoints import find_checkpoint, image_size_of, load_model
from sam2_amg.network.model_types import find_model_type
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.huge_pages import use_huge_pages
from sam2_amg.program import prefix_for
from sam2_amg.server.app import create_app
from sam2_amg.server.engine import Engine
from sam2_amg.server.wsgi import Server, bind, drain_on_signals
from sam2_amg.signals import exit_on_signals


def run_in_background(task: Callable[[], None]) -> Future[None]:
    """Runs `task` in a thread; the answer's `result()` waits for it, and raises what it raised.

    The process may end before. Made for hashing gigabytes and reading them, which let other threads run.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            task()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    return done


def load_generator(config: ServerConfig, report: Callable[[str], None]) -> Generator:
    """Loads the model, and compiles where the mode does. Raises StartupError."""
    kind = find_model_type(config.model.model_type)
    device = torch.device(config.model.device)
    path = find_checkpoint(config.model.checkpoint_dir, kind)
    make_subgraphs: MakeSubgraphs = partial(compile_mode, report=report)
    if (folder := config.model.load_exported) is None:
        report(f"loading {path.name}")
        model = load_model(path, kind, device)
    else:
        report(f"loading {path.name} and checking the packages")
        size, batch_size = image_size_of(kind), config.model.batch_size
        shapes = static_shapes(config.model.mode, size, config.generator, device, batch_size)
        build = Build(path, kind.name, config.model.mode, device, shapes)
        checked = run_in_background(partial(check_packages, folder, build, file_names(shapes, device)))
        model = load_model(path, kind, device)
        checked.result()
        make_subgraphs = from_packages(folder, report)
    return build_generator(model, config.model.mode, config.generator, device, make_subgraphs, config.model.batch_size)


def load_and_warm_up(config: ServerConfig, engine: Engine) -> Generator:
    """The generator that is asked for, after a first image in each of the engine's workers. Raises StartupError."""
    with memory_errors("--points_per_batch or --batch_size"):
        generator = load_generator(config, engine.report)
        engine.report("running a first image")
        image = decode_image(EXAMPLE.read_bytes(), Limits())
        for _ in range(generator.workers):
            engine.start_worker(partial(warm_up, generator, image, torch.device(config.model.device)))
    return generator


def keep_compiled(folder: Path) -> None:
    """Has torch's and Triton's compilers keep what they make in `folder`, for the next start. Raises StartupError."""
    try:
        for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str((folder / name).resolve())
    except OSError as error:
        raise StartupError(f"--compile_cache {folder} cannot be used ({error.strerror}); choose another") from error


def greeting(config: ServerConfig, port: int) -> str:
    """What a person sees when the server is ready: the address, and a curl line that works."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, config.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"http://{host}:{port}"
    example = shlex.quote(f"image=@{os.path.relpath(EXAMPLE)}")
    model = config.model
    return (
        f"Serving SAM 2.1 {model.model_type} (mode {model.mode.value}, {model.device}) on {address}\n"
        f"Try it:  curl -F {example} {address}/upload -o masks.png"
    )


def serve(config: ServerConfig) -> None:
    """Starts the server, and runs it until a signal drains it.

    It listens while the model loads and compiles, so that /readyz can say what is going on. Raises StartupError where
    it cannot start, which leaves the socket open: the process is to end; and SystemExit where the HTTP server stops by
    itself.
    """
    exit_on_signals()
    use_huge_pages()
    if config.compile_cache is not None:
        keep_compiled(config.compile_cache)
    sock = bind(config.host, config.port)
    decoders = DecoderPool(config.limits)
    engine = Engine(None, config.limits)
    server = Server(create_app(config, engine, decoders), sock, config.limits)
    serving = threading.Thread(target=server.run, name="server", daemon=True)
    serving.start()
    generator = load_and_warm_up(config, engine)
    drain_on_signals(server)
    keep_from_garbage_collection()
    engine.set_generator(generator)
    print(greeting(config, sock.getsockname()[1]), flush=True)
    serving.join()
    if not server.draining:  # the thread's traceback is in the log
        raise SystemExit(f"{prefix_for('serve')}: error: the HTTP server stopped by itself; start it again")
    engine.close()
    decoders.close()
