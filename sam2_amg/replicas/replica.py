"""A replica: a process with a device of its own that decodes, segments and makes the answer."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray import serve

from sam2_amg.config import ServerConfig
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import RequestError, StartupError
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.pipeline.pinned_memory import empty_pinned
from sam2_amg.process.logs import start_log, use_format
from sam2_amg.replicas.compiling import after_the_first
from sam2_amg.replicas.files import ModelFiles, local_model
from sam2_amg.replicas.listener import Listener
from sam2_amg.replicas.messages import Call, ReplicaState, Reply, Word
from sam2_amg.replicas.ports import listen_on_loopback
from sam2_amg.replicas.scaling import LOAD
from sam2_amg.server.engine import Engine
from sam2_amg.server.failure import Failure
from sam2_amg.server.messages import internal_error
from sam2_amg.server.segmenting import Segmenting
from sam2_amg.server.startup import get_ready
from sam2_amg.server.ticket import Ticket, stages_of
from sam2_amg.server.upload import Upload

logger = logging.getLogger(__name__)
_BEAT = 1.0  # seconds between two reports
_NOTICED = 2.0  # seconds for the front to notice that a replica is to end
_ORPHANED = 30.0  # seconds without a word of the front after which a replica ends
_PATIENCE = 5.0  # seconds for the registry to answer
_AHEAD = 4  # images that are decoded, and answers that are made, while the device works on others
FRONT_LOST = 74  # exit status

listen_on_loopback()  # before Ray Serve opens the replica's port, which it does once this file is imported


@dataclass(frozen=True)
class ReplicaPlan:
    """All that a replica needs to know. `app` is the name of its Ray Serve application."""

    config: ServerConfig
    files: ModelFiles
    app: str
    is_ours: bool  # whether Ray Serve was started for this application
    host: str | None  # the address to take calls at; None for the node's own
    key: bytes = field(repr=False)  # which the front proves that it knows


class Replica:
    """What Ray Serve makes a replica of. Ends its process, to be replaced, when it cannot answer any more."""

    _listener: Listener | None = None
    _is_leaving = False

    def __init__(self, plan: ReplicaPlan, registry: Any) -> None:
        """Loads the model, and runs a first image. Raises StartupError, after telling the registry."""
        use_one_heap()
        use_huge_pages()
        start_log()
        use_format(plan.config.log_format)
        self._plan, self._registry = plan, registry
        self._images = self._load = 0
        context = serve.get_replica_context()
        gpus = ray.get_gpu_ids()
        device = f"cuda:{gpus[0]}" if gpus else plan.config.model.device
        rank = context.rank.rank if context.rank is not None else 0
        self._state = ReplicaState(uuid.uuid4().hex, rank, _node(), os.getpid(), device)
        self._engine = Engine(None, plan.config.limits, _end_at_once)
        threading.Thread(target=self._report, name="heartbeat", daemon=True).start()
        try:
            self._start()
            host = plan.host or ray.util.get_node_ip_address()
            self._listener = Listener(host, plan.key, self.answer, plan.config.limits.queue_size)
        except StartupError as error:
            self._tell(replace(self._state, failure=str(error)))
            raise

    def _start(self) -> None:
        config = self._plan.config
        model = local_model(config.model, self._plan.files, self._read)
        config = replace(config, model=model)
        decoders = DecoderPool(config.limits, empty_pinned)
        self._segmenting = Segmenting(self._engine, decoders)
        with after_the_first(model, config.generator, config.compile_cache, self._engine.report):
            get_ready(config, self._engine, decoders)
        self._engine.phase = "ready"

    def _read(self, path: str, offset: int) -> bytes:
        return ray.get(self._registry.read.remote(path, offset))

    def answer(self, call: Call, ticket: Ticket) -> Reply:
        """The answer to one image, or why there is none. Raises nothing."""
        begun = time.monotonic()
        try:
            ticket.enter("decoding")
            with self._engine.slot():
                made = self._segmenting.answer(Upload(call.name, call.data), call.asked, ticket)
        except RequestError as error:
            return Reply(refusal=error)
        except Exception as error:
            logger.exception("request %s failed", call.request_id)
            return Reply(refusal=internal_error(error))
        ticket.enter("done")
        self._images += 1
        return Reply(made.answer, made.masks, None, tuple(stages_of(ticket, begun)[1:]))

    def check_health(self) -> None:
        """Ray Serve asks every few seconds. Raises RequestError if this replica is to be replaced."""
        if self._engine.failure is not None:
            raise self._engine.failure.refusal()

    def __del__(self) -> None:
        """Ray Serve calls it before it ends a replica of which there are too many: what that has is answered first."""
        if not self._listener or self._is_leaving:
            return
        self._is_leaving = True
        end = time.monotonic() + self._plan.config.limits.drain_timeout
        time.sleep(_NOTICED)
        while self._listener.in_flight and time.monotonic() < end:
            time.sleep(_BEAT / 20)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve asks for what `wanted_replicas` reads."""
        return {LOAD: float(self._load)}

    # What the front sees.

    @property
    def state(self) -> ReplicaState:
        """How it is now."""
        engine = self._engine
        return replace(
            self._state,
            phase="ending" if self._is_leaving else engine.phase,
            images=self._images,
            in_flight=engine.in_flight,
            at_once=engine.at_once + _AHEAD,
            own=engine.own if self._listener and not self._is_leaving else None,
            address=self._listener.address if self._listener else None,
            weights=engine.weights,
        )

    def _report(self) -> None:
        heard = time.monotonic()
        while time.monotonic() - heard < _ORPHANED:
            word = self._tell(self.state)
            if word is not None:
                heard = time.monotonic() - word.silence
                self._load = word.load
            time.sleep(_BEAT)
        logger.critical("The front was not heard of for %g s. This replica ends.", _ORPHANED)
        threading.Thread(target=take_down, args=(self._plan.app, self._plan.is_ours, False), daemon=True).start()
        time.sleep(_PATIENCE)
        os._exit(FRONT_LOST)

    def _tell(self, state: ReplicaState) -> Word | None:
        """Reports; what is heard of the front, None if nobody answers."""
        try:
            return ray.get(self._registry.note.remote(state), timeout=_PATIENCE)
        except Exception:  # of Ray there are many kinds, and all mean the same here
            return None


def take_down(app: str, is_ours: bool, wait: bool = True) -> None:
    """Ends the application, whose replicas are not started again then, and Ray Serve if it `is_ours` and nobody else
    uses it. A replica cannot `wait` for its own end."""
    serve.delete(app, _blocking=wait)
    if is_ours and not set(serve.status().applications) - {app}:
        serve.shutdown()


def _end_at_once(failure: Failure) -> None:
    """Ends the process: whoever waits for it is tried on another replica."""
    os._exit(failure.exit_status)


def _node() -> str:
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
