"""Serve SAM 2.1's automatic mask generator over HTTP: `python server.py --help`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path

import torch

from sam2_amg.checkpoints import find_checkpoint, find_model_type, load_model
from sam2_amg.cli import fail, parse
from sam2_amg.config import ServerConfig
from sam2_amg.engine import Engine
from sam2_amg.errors import StartupError
from sam2_amg.http import create_app
from sam2_amg.serving import Server, bind, drain_on_signals, exit_on_signals
from sam2_amg.stages import build_generator

EXAMPLE = Path(__file__).resolve().parent / "demo" / "photographs" / "dog.jpg"


def build_engine(config: ServerConfig) -> Engine:
    """Loads the model and starts the worker that owns it. Raises StartupError."""
    kind = find_model_type(config.model.model_type)
    device = torch.device(config.model.device)
    model = load_model(find_checkpoint(config.model.checkpoint_dir, kind), kind, device)
    return Engine(build_generator(model, config.model.mode, config.generator, device), config.limits)


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


def main(arguments: list[str]) -> None:
    """Starts the server that the command line asks for, and runs it until a signal drains it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    exit_on_signals()
    try:
        config = parse(arguments)
        sock = bind(config.host, config.port)  # before the model, which takes longer to load
        engine = build_engine(config)
        server = Server(create_app(config, engine), sock, config.limits)
    except StartupError as error:
        fail(error)
    drain_on_signals(server)
    print(greeting(config, sock.getsockname()[1]), flush=True)
    server.run()
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
