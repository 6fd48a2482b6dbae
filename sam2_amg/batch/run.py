"""The batch job from its settings to its exit status."""

from __future__ import annotations

import io
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sam2_amg.batch.config import BatchConfig
from sam2_amg.batch.inputs.plan import LISTS, Plan, open_plan
from sam2_amg.batch.inputs.reading import read_entries
from sam2_amg.batch.makers import manifest_of, servers_of, work_of
from sam2_amg.batch.manifest import NAME as MANIFEST
from sam2_amg.batch.manifest import Manifest, settle
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.batch.outputs.unpacked import unpacked
from sam2_amg.batch.progress import Counts, Progress, counts_of
from sam2_amg.batch.stopping import Stopper
from sam2_amg.batch.stores.base import Store
from sam2_amg.batch.stores.choose import open_existing, open_store
from sam2_amg.batch.stores.folder import FolderStore
from sam2_amg.batch.work import Shard, Work, make_shards
from sam2_amg.process.logs import use_format

if TYPE_CHECKING:
    from sam2_amg.batch.servers.segmenter import RemoteSegmenter

logger = logging.getLogger("sam2_amg.batch")
_READ_AHEAD = 8  # files


@dataclass(frozen=True)
class Job:
    """A job whose list and manifest lie in its store: what shards are made with, and those of this run (`todo`).
    `servers` are asked for masks, if there are any."""

    config: BatchConfig
    store: Store
    plan: Plan
    output: Output
    manifest: Manifest
    stopper: Stopper
    todo: Sequence[int]
    servers: RemoteSegmenter | None = None


class Makers(Protocol):
    """What makes shards: this process, or others."""

    def make(self, todo: Sequence[int], note: Callable[[Counts], None]) -> Iterator[int]:
        """Makes shards until the job is to stop; yields the number of each when it is in its place. `note` gets what is
        counted meanwhile. Raises StartupError."""
        ...


OpenMakers = Callable[[Job], AbstractContextManager[Makers]]
"""Has makers ready until the end of a block. Raises StartupError."""


class MakersHere:
    """Makes shards in this process, by its own model or by servers."""

    def __init__(self, job: Job, work: Work) -> None:
        self._job, self._work = job, work

    def make(self, todo: Sequence[int], note: Callable[[Counts], None]) -> Iterator[int]:
        """Makes shards one after another."""
        job = self._job
        for shard in make_shards(
            self._shards(todo), self._work, job.output, job.manifest.hash, lambda finished: note(counts_of(finished))
        ):
            yield shard.number

    def _shards(self, todo: Sequence[int]) -> Iterator[Shard]:
        """The shards to be made, until the job is to stop."""
        job = self._job
        for number in todo:
            if job.stopper.is_stopping:
                return
            largest = job.config.limits.max_body_mib << 20
            items = read_entries(job.plan.entries(number), _READ_AHEAD, largest)
            yield Shard(number, items, job.store.write(name_of(number, job.output)))


@contextmanager
def makers_here(job: Job) -> Iterator[Makers]:
    """Has this process make shards, or ask servers for their masks."""
    with work_of(job.config, job.output, job.servers) as work:
        yield MakersHere(job, work)


def run_batch(config: BatchConfig, open_makers: OpenMakers = makers_here) -> int:
    """Makes the shards that are missing. Returns the exit status: 0; 1 with `strict` if an image has an error; 130 or
    143 if a signal ended it early. Raises StartupError, which is status 2.
    """
    use_format(config.log_format)
    stopper = Stopper()
    stopper.install()
    try:
        return _Run(config, stopper, open_makers).run()
    except KeyboardInterrupt:
        dropped = "the shard in hand is dropped" if stopper.has_begun else "nothing is begun"
        logger.warning("%s; start the job again, and it goes on", dropped)
        return stopper.status


class _Run:
    def __init__(self, config: BatchConfig, stopper: Stopper, open_makers: OpenMakers) -> None:
        self.config, self.stopper, self.open_makers = config, stopper, open_makers

    def run(self) -> int:
        """The exit status."""
        config = self.config
        if config.dry_run:
            return self._dry_run()
        OUTPUTS[config.format].require()
        store = open_store(config.output)
        servers = servers_of(config)
        about = manifest_of(config, servers)
        is_new = MANIFEST not in store.names()
        if not is_new:  # before --rescan adds a list
            settle(store, about, logger.info)
        plan = self._plan(store, config.rescan)
        if is_new:  # not for INPUTs that cannot be listed
            settle(store, about, logger.info)
        todo = self._todo(plan, store)
        if not todo:
            logger.info("nothing is left to do: all %d shards of this run are in %s", plan.shards, store.address)
            return 0
        return self._make(Job(config, store, plan, output_of(config, store), about, self.stopper, todo, servers))

    def _plan(self, store: Store, rescan: bool) -> Plan:
        config = self.config
        stdin = sys.stdin.buffer if sys.stdin is not None else io.BytesIO()  # closed by who started this process
        return open_plan(store, config.inputs, stdin, config.shard_size, rescan, logger.info, config.unpack)

    def _make(self, job: Job) -> int:
        todo = job.todo
        self.stopper.has_begun = True
        with self.open_makers(job) as makers:
            self.stopper.install()  # again: Ray handles signals otherwise
            progress = Progress(job.plan.images_of(todo), len(todo), self.config.log_format)
            what = "ended early"
            try:
                for number in makers.make(todo, progress.note):
                    progress.shards += 1
                    logger.debug("shard %d is in its place", number)
                what = "done" if progress.shards == len(todo) else what
            finally:
                progress.end(what)
        if progress.shards == len(todo):
            return int(self.config.strict and progress.counts.errors.total() > 0)
        return self.stopper.status

    def _todo(self, plan: Plan, store: Store) -> list[int]:
        i, n = self.config.share
        output = output_of(self.config, store)
        there = store.names()
        return [number for number in range(i, plan.shards, n) if name_of(number, output) not in there]

    def _dry_run(self) -> int:
        """Counts what would be made, and writes nothing."""
        config = self.config
        with tempfile.TemporaryDirectory() as folder:
            store: Store = FolderStore(Path(folder))
            output = open_existing(config.output)
            if output is not None and LISTS[0] in output.names():
                store = output
            plan = self._plan(store, False)
            todo = self._todo(plan, output or store)
            images = plan.images_of(todo)
        counted = "an unknown number of images (tars)" if images is None else f"{images} images"
        print(f"{plan.shards} shards in all; {len(todo)} left for this run, with {counted}")
        return 0


def output_of(config: BatchConfig, store: Store) -> Output:
    """How shards are written."""
    output = OUTPUTS[config.format]
    return unpacked(output, store) if config.unpack else output


def name_of(number: int, output: Output) -> str:
    """The name of a shard's file."""
    return f"{number:06d}{output.suffix}"
