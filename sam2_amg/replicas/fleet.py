"""Has replicas make the answers: hands each the received bytes, and waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from sam2_amg.config import GeneratorConfig, Limits
from sam2_amg.errors import RequestError, StartupError
from sam2_amg.replicas.channel import ChannelLost, TimeIsOver
from sam2_amg.replicas.gate import Gate, Turn
from sam2_amg.replicas.links import Links
from sam2_amg.replicas.messages import SILENT, Call, ReplicaState, Reply, Seen, portable
from sam2_amg.server.desk import Made
from sam2_amg.server.failure import Failure
from sam2_amg.server.gauges import gauge, gauges
from sam2_amg.server.parameters import Asked
from sam2_amg.server.reception import Reception
from sam2_amg.server.slots import cancelled, timed_out
from sam2_amg.server.ticket import Ticket
from sam2_amg.server.upload import Upload

logger = logging.getLogger(__name__)
RAY_LOST = 73  # exit status
_PAUSE = 0.5  # seconds between two looks at the replicas
_PASSED_OVER = 5.0  # seconds for which a replica gets no more after it has lost a request: longer than SILENT
_LOST = 30.0  # seconds without an answer of Ray after which it is lost
_TRIES = 2
_GOING = {"failed", "shutting_down", "starting", "queue_full"}  # codes of a replica that cannot take an image now
Look = Callable[[int], list[Seen]]


class Fleet(Reception):
    """Stands for the replicas: `queue_size` requests wait here, and replicas get as many as keep their devices busy.

    An image whose replica is lost is tried once more on another.
    """

    def __init__(self, limits: Limits, key: bytes, on_failure: Callable[[Failure], None] | None = None) -> None:
        """`key` is what replicas know this process by."""
        self._gate = Gate(limits.queue_size)
        super().__init__(self._gate, limits, on_failure)
        self._links = Links(key)
        self._seen: list[Seen] = []
        self._passed_over: dict[str, float] = {}  # by ReplicaState.started, until when
        self._choosing = threading.Lock()  # held while it is decided which replicas get images
        self._own: GeneratorConfig | None = None
        self._retries = 0
        self._per_image = 1.0
        self._latest = time.monotonic()
        self._ended = threading.Event()

    # The replicas.

    def start(self, look: Look) -> None:
        """Begins to hand images over. `look` says that this process is there and how many images it has, and asks for
        the replicas."""
        threading.Thread(target=self._watch, args=(look,), name="replicas", daemon=True).start()

    def _watch(self, look: Look) -> None:
        heard = time.monotonic()
        while not self._ended.wait(_PAUSE):
            try:
                self._note(look(self._gate.inside + self._gate.waiting))
                heard = time.monotonic()
            except Exception as error:  # of Ray there are many kinds, and all mean the same here
                if time.monotonic() - heard > _LOST and not self._ended.is_set():
                    self.fail(Failure(RAY_LOST, f"Ray does not answer any more ({type(error).__name__})."))

    def _note(self, seen: list[Seen]) -> None:
        self._seen = seen
        ready = self.ready
        for each in ready:
            self.weights = self.weights or each.state.weights
        if not ready and seen:
            self.phase = seen[0].state.phase
        there = {each.state.started for each in seen}
        self._links.keep(there)
        with self._choosing:
            self._passed_over = {name: until for name, until in self._passed_over.items() if name in there}
            self._use_ready()
        if ready and self._own is None:
            self._own = ready[0].state.own

    def _use_ready(self) -> None:
        self._gate.set_replicas([each.state for each in self.ready])

    @property
    def ready(self) -> list[Seen]:
        """The replicas that answer."""
        return [each for each in self._seen if self._answers(each)]

    def _answers(self, seen: Seen) -> bool:
        """Whether a replica is ready, and was heard of lately."""
        state = seen.state
        return state.own is not None and seen.silent < SILENT and not self._is_passed_over(state)

    def _condition(self, seen: Seen) -> str:
        """What is shown of a replica: ready, silent, or what it does instead."""
        state = seen.state
        if self._answers(seen):
            return "ready"
        return state.failure or ("silent" if state.own is not None else state.phase)

    def _is_passed_over(self, replica: ReplicaState) -> bool:
        return time.monotonic() < self._passed_over.get(replica.started, 0.0)

    def _pass_over(self, replica: ReplicaState) -> None:
        with self._choosing:
            self._passed_over[replica.started] = time.monotonic() + _PASSED_OVER
            self._use_ready()

    @property
    def startup_failure(self) -> str | None:
        """Why a replica cannot start; None if none has failed."""
        return next((each.state.failure for each in self._seen if each.state.failure), None)

    # What routes ask.

    @property
    def own(self) -> GeneratorConfig | None:
        """The parameters of the replicas' generators; None before the first is ready."""
        return self._own

    @property
    def at_once(self) -> int:
        """Of all replicas that are ready."""
        return sum(each.state.at_once for each in self.ready) or 1

    @property
    def per_image(self) -> float:
        """A moving average of the time between answers while there is work."""
        return self._per_image

    @property
    def is_alive(self) -> bool:
        """Whether nothing has gone wrong in this process."""
        return not self.is_closing and self.failure is None

    @property
    def is_ready(self) -> bool:
        """Whether a replica answers."""
        return super().is_ready and bool(self.ready)

    def check_room(self) -> None:
        """Refuses also while no replica is ready: one is started again."""
        super().check_room()
        if not self.ready:
            raise RequestError(503, "no_replica", "No replica is ready; one is being started.", retry_after=5)

    def answer(self, upload: Upload, asked: Asked, ticket: Ticket) -> Made:
        """The answer to one image, for which the caller holds a slot. Raises RequestError, as the replica does, and
        replica_lost (503)."""
        ticket.enter("queued")
        call = Call(upload.name, upload.data, portable(asked), ticket.request_id, 0.0)
        reply = self._reply(call, ticket)
        self._note_answer()
        ticket.measured = reply.stages
        if reply.refusal is not None:
            raise reply.refusal
        assert reply.answer is not None
        return Made(reply.answer, reply.masks)

    def _reply(self, call: Call, ticket: Ticket) -> Reply:
        for tried in range(_TRIES):
            turn = Turn(ticket)
            if not self._gate.put(turn, first=tried > 0):
                raise self.ended()
            with self._gate.passing(turn, self.limits.request_timeout) as replica:
                ticket.enter("segmenting")
                reply = self._ask(replica, call, ticket)
            if reply is not None:
                return reply
            self._retries += 1
        message = "The replicas that worked on this image were lost; try again in 5 s."
        raise RequestError(503, "replica_lost", message, retry_after=5)

    def _ask(self, replica: ReplicaState, call: Call, ticket: Ticket) -> Reply | None:
        """A replica's reply; None if it is lost. Raises RequestError timeout (504), cancelled and shutting_down."""
        try:
            reply = self._links.ask(replica, replace(call, seconds=ticket.remaining), ticket)
        except ChannelLost as error:
            if ticket.cancelled.is_set():
                raise cancelled() from error
            if self._ended.is_set():
                raise self.ended() from error
            if isinstance(error, TimeIsOver):
                raise timed_out(self.limits.request_timeout) from error
            if self._links.reaches(replica):
                logger.warning("request %s: replica %d lost a connection (%s)", call.request_id, replica.rank, error)
                return None
            problem = f"is lost ({error})"
        else:
            if reply.refusal is None or reply.refusal.code not in _GOING:
                return reply
            problem = f"refuses it ({reply.refusal.code})"
        logger.warning("request %s: replica %d %s", call.request_id, replica.rank, problem)
        self._pass_over(replica)
        return None

    def _note_answer(self) -> None:
        now = time.monotonic()
        if self._gate.waiting:  # else it is the time between requests
            self._per_image = 0.8 * self._per_image + 0.2 * (now - self._latest)
        self._latest = now

    # The end.

    def close(self, timeout: float | None = None) -> bool:
        """What replicas still work on is given up then."""
        answered = super().close(timeout)
        self._links.end()
        return answered

    def _stop_watching(self) -> None:
        self._ended.set()

    # How it is.

    def measures(self) -> Iterator[Metric]:
        """Each replica, by rank, node and device."""
        seen = [(_labels(each), each) for each in self._seen]
        yield gauge("replicas_ready", "Replicas that answer", len(self.ready))
        yield CounterMetricFamily("sam2_amg_retries", "Images tried again on another replica", self._retries)
        for name, text, value in (
            ("replica_ready", "1 if the replica answers", self._answers),
            ("replica_images", "Images that the replica has answered since it started", lambda each: each.state.images),
            ("replica_queue", "Images that the replica has", lambda each: each.state.in_flight),
            ("replica_restarts", "How often the replica was started again", lambda each: each.restarts),
        ):
            yield gauges(name, text, [(labels, value(each)) for labels, each in seen])

    def describe(self) -> dict[str, Any]:
        """Each replica."""
        keys = ("rank", "node", "pid", "device", "images")
        return {
            "replicas": [
                {key: getattr(each.state, key) for key in keys}
                | {"state": self._condition(each)}
                | {"queue": each.state.in_flight, "restarts": each.restarts}
                for each in self._seen
            ]
        }


def _labels(seen: Seen) -> dict[str, str]:
    return {"rank": str(seen.state.rank), "node": seen.state.node, "device": seen.state.device}


def wait_until_ready(fleet: Fleet, has_failed: Callable[[], str | None]) -> None:
    """Waits for the first replica. Raises StartupError with what a replica, or Ray, says."""
    while not fleet.is_ready:
        problem = fleet.startup_failure or has_failed()
        if problem is not None:
            raise StartupError(problem)
        if fleet.failure is not None:
            raise SystemExit(fleet.failure.exit_status)
        time.sleep(0.1)
