"""Shards of a batch job made by replicas: Ray actors that each have a model, and write to the store by themselves."""

from __future__ import annotations

import io
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sam2_amg.batch.config import BatchConfig
from sam2_amg.batch.inputs.plan import open_plan
from sam2_amg.batch.makers import manifest_of
from sam2_amg.batch.manifest import NAME as MANIFEST
from sam2_amg.batch.manifest import Manifest, settle
from sam2_amg.batch.progress import Counts
from sam2_amg.batch.run import Job, Makers, makers_here, output_of
from sam2_amg.batch.stopping import Stopper
from sam2_amg.batch.stores.choose import open_existing
from sam2_amg.errors import StartupError, first_line
from sam2_amg.pipeline.host_memory import use_huge_pages, use_one_heap
from sam2_amg.process.logs import start_log, use_format
from sam2_amg.replicas.compiling import after_the_first
from sam2_amg.replicas.runtime import connected, options_for

logger = logging.getLogger("sam2_amg.batch")
_PAUSE = 1.0  # seconds between two looks at the signals
_MOST_LOST = 3  # workers that a shard, or loading the model, may cost


@dataclass(frozen=True)
class Failed:
    """A StartupError of a replica: its message, which crosses processes unchanged."""

    message: str


class ShardMaker:
    """A replica, in a process of its own. `folder` is the working directory of the process that began the job, which
    relative paths start from; `manifest` is the one that it wrote."""

    def __init__(self, config: BatchConfig, manifest: Manifest, folder: str) -> None:
        self._config, self._manifest, self._folder = config, manifest, folder
        self._kept = ExitStack()
        self._makers: Makers | None = None

    def load(self) -> Failed | None:
        """Opens the store and loads the model."""
        use_one_heap()
        use_huge_pages()
        start_log()
        use_format(self._config.log_format)
        logging.getLogger("sam2_amg").setLevel(logging.WARNING)  # the job's own process tells how far it is
        config = self._config
        assert config.model is not None
        try:
            job = job_there(config, self._manifest, self._folder)
            parameters = config.generator, config.parameters
            with after_the_first(config.model, parameters, config.compile_cache, logger.info):
                self._makers = self._kept.enter_context(makers_here(job))
        except StartupError as error:
            return Failed(str(error))
        return None

    def make(self, number: int) -> Counts | Failed:
        """Makes a shard; what is counted of it."""
        assert self._makers is not None
        counts = Counts()
        try:
            for _ in self._makers.make([number], counts.add):
                pass
        except StartupError as error:
            return Failed(str(error))
        return counts


def job_there(config: BatchConfig, begun: Manifest, folder: str) -> Job:
    """The job that a process of this host, or of another one, began in `folder` with the manifest `begun`, as seen
    from here: without shards to make. Raises StartupError if folder, store or checkpoint are others here."""
    host = socket.gethostname()
    try:
        os.chdir(folder)
    except OSError as error:
        raise StartupError(
            f"{folder} is not there on {host} ({error.strerror}); begin in a folder that all nodes have"
        ) from error
    store = open_existing(config.output)
    shared = "give a folder or a bucket that all nodes share"
    if store is None or MANIFEST not in store.names():
        raise StartupError(f"--output {config.output} has no {MANIFEST} on {host}; {shared}")
    about = manifest_of(config, None)
    settle(store, about, logger.debug)
    if about.hash != begun.hash:
        raise StartupError(f"--output {config.output} is another folder on {host}; {shared}")
    for name, version in about.versions.items():
        if version != begun.versions.get(name):
            logger.warning("%s has %s %s; the job was begun with %s", host, name, version, begun.versions.get(name))
    plan = open_plan(store, config.inputs, io.BytesIO(), config.shard_size, False, logger.debug)
    return Job(config, store, plan, output_of(config, store), about, Stopper(), ())


@dataclass(eq=False)
class _Worker:
    """An actor, and the number of the shard in its hand; None while it loads the model or is idle."""

    actor: Any
    shard: int | None = None


class Replicas:
    """Hands shards out to actors, one at a time each. An actor that dies is replaced, and its shard made by another."""

    def __init__(self, job: Job, start: Callable[[], Any], most: int) -> None:
        """`start` makes an actor of ShardMaker; there are at most `most`."""
        self._job, self._start, self._most = job, start, most
        self._queue: deque[int] = deque()
        self._under_way: dict[Any, _Worker] = {}  # by the reference to the result of its call
        self._idle: list[_Worker] = []
        self._lost: Counter[int | None] = Counter()  # by shard; None for those that were loading the model
        self._failure: str | None = None

    def load(self) -> None:
        """Starts actors; returns when the first of them has its model, or the job is to stop. Raises StartupError."""
        self._queue.extend(self._job.todo)
        while not (self._idle or self._is_ending):
            self._start_missing()
            for _ in self._finished(lambda _: None):
                pass
        self._raise_failure()

    def make(self, todo: Sequence[int], note: Callable[[Counts], None]) -> Iterator[int]:
        """Makes shards until the job is to stop: those in hand are finished then."""
        self._queue = deque(todo)
        while self._hand_out():
            yield from self._finished(note)
        self._raise_failure()

    @property
    def _is_ending(self) -> bool:
        """Whether no more shards are handed out."""
        return self._job.stopper.is_stopping or self._failure is not None

    @property
    def _in_hand(self) -> int:
        return sum(worker.shard is not None for worker in self._under_way.values())

    def _hand_out(self) -> bool:
        """Gives idle actors shards; whether there is anything to wait for."""
        if self._is_ending:
            return self._in_hand > 0
        while self._queue and self._idle:
            worker = self._idle.pop()
            worker.shard = self._queue.popleft()
            self._under_way[worker.actor.make.remote(worker.shard)] = worker
        self._start_missing()
        return self._in_hand > 0 or len(self._queue) > 0

    def _start_missing(self) -> None:
        """Starts as many actors as there is work for."""
        wanted = min(self._most, len(self._queue) + self._in_hand)
        for _ in range(wanted - len(self._under_way) - len(self._idle)):
            worker = _Worker(self._start())
            self._under_way[worker.actor.load.remote()] = worker

    def _finished(self, note: Callable[[Counts], None]) -> Iterator[int]:
        """Waits a moment for calls to end; yields the shards that are in their place."""
        import ray

        for reference in ray.wait(list(self._under_way), timeout=_PAUSE)[0]:
            worker = self._under_way.pop(reference)
            try:
                result = ray.get(reference)
            except _lost_errors() as error:
                self._replace(worker, first_line(error))
                continue
            if isinstance(result, Failed):
                self._failure = self._failure or result.message
                continue
            shard, worker.shard = worker.shard, None
            self._idle.append(worker)
            if shard is None:
                self._lost[None] = 0
            else:
                note(result)
                yield shard

    def _replace(self, worker: _Worker, why: str) -> None:
        """Makes sure that an actor is gone, and puts its shard back."""
        import ray

        ray.kill(worker.actor)
        shard = worker.shard
        what = (
            "a worker was lost while it loaded the model" if shard is None else f"a worker was lost with shard {shard}"
        )
        self._lost[shard] += 1
        if shard is not None:
            self._queue.appendleft(shard)
        if self._lost[shard] < _MOST_LOST:
            logger.warning("%s, and is replaced (%s)", what, why)
            return
        way_out = "give replicas more memory, or see Ray's logs"
        self._failure = self._failure or f"{what}, as {_MOST_LOST - 1} were before ({why}); {way_out}"

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StartupError(self._failure)


def _lost_errors() -> tuple[type[Exception], ...]:
    """What a call ends with whose process or node was lost."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        exceptions.TaskCancelledError,
    )


@contextmanager
def replicas_of_job(job: Job) -> Iterator[Makers]:
    """Has replicas make shards. Raises StartupError: without Ray, without GPUs enough, or what replicas raise."""
    config = job.config
    assert config.replicas is not None
    assert config.model is not None
    with connected(config.replicas, config.model.device):
        job.stopper.install()  # Ray has handlers of its own
        import ray

        options: dict[str, Any] = {"max_restarts": 0, **options_for(config.model.device)}
        if "OMP_NUM_THREADS" in os.environ:  # which Ray sets to 1 otherwise
            options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}}
        actors: Any = ray.remote(ShardMaker).options(**options)
        folder = os.getcwd()
        replicas = Replicas(job, lambda: actors.remote(config, job.manifest, folder), config.replicas.most)
        logger.info("%d replicas load the model ...", min(config.replicas.most, len(job.todo)))
        replicas.load()
        yield replicas
