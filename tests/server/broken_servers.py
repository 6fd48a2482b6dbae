"""Servers whose generator breaks, each in a process forked from this one, which imports torch once for all of them.

    python tests/server/broken_servers.py FOLDER

Each writes to FOLDER/NAME.out and FOLDER/NAME.log. The program prints `NAME STATUS` when one ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from sam2_amg.config import GeneratorConfig, Limits, ModelConfig, ServerConfig
from sam2_amg.pipeline.base import Generator
from sam2_amg.server import startup
from sam2_amg.server.engine import Engine
from sam2_amg.server.jobs import JobQueue


class Broken(Generator):
    config = GeneratorConfig()


class DeviceFails(Broken):
    def generate(self, image: Any, config: Any = None) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def require_device(self) -> None:
        self.generate(None)


class HangsInC(Broken):
    def generate(self, image: Any, config: Any = None) -> Any:
        return ctypes.CDLL(None).sleep(300)


class WorkerDies(Broken):
    def generate(self, image: Any, config: Any = None) -> Any:
        JobQueue.take = None  # type: ignore[assignment]  # what the worker calls next
        return []


BROKEN = {"device": DeviceFails, "stuck": HangsInC, "worker": WorkerDies}


def serve(name: str, folder: Path) -> None:
    """Serves with the generator of this name, as `sam2-amg serve` does."""
    for stream, kind in ((1, "out"), (2, "log")):
        os.dup2(os.open(folder / f"{name}.{kind}", os.O_WRONLY | os.O_CREAT, 0o644), stream)

    def load(_config: ServerConfig, engine: Engine) -> Generator:
        engine.start_worker(lambda: None)
        return BROKEN[name]()

    startup.load_and_warm_up = load
    startup.serve(ServerConfig(ModelConfig(folder, "demo"), limits=Limits(stuck_timeout=0.5), port=0))


def main() -> None:
    folder = Path(sys.argv[1])
    names = {}
    for name in BROKEN:
        pid = os.fork()
        if pid == 0:
            serve(name, folder)
            os._exit(0)
        names[pid] = name
    while names:
        pid, status = os.wait()
        print(names.pop(pid), os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
