"""The batch job from its settings to its exit status."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from sam2_amg.batch.config import BatchConfig
from sam2_amg.batch.inputs.plan import LISTS, Plan, open_plan
from sam2_amg.batch.inputs.reading import read_entries
from sam2_amg.batch.makers import manifest_of, servers_of, work_of
from sam2_amg.batch.manifest import NAME as MANIFEST
from sam2_amg.batch.manifest import settle
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.outputs.table import OUTPUTS
from sam2_amg.batch.outputs.unpacked import unpacked
from sam2_amg.batch.progress import Progress
from sam2_amg.batch.stopping import Stopper
from sam2_amg.batch.stores.base import Store
from sam2_amg.batch.stores.choose import open_existing, open_store
from sam2_amg.batch.stores.folder import FolderStore
from sam2_amg.batch.work import Shard, Work, make_shards
from sam2_amg.logs import use_format

logger = logging.getLogger("sam2_amg.batch")
_READ_AHEAD = 8  # files


def run_batch(config: BatchConfig) -> int:
    """Makes the shards that are missing. Returns the exit status: 0; 1 with `strict` if an image has an error; 130 or
    143 if a signal ended it early. Raises StartupError, which is status 2.
    """
    use_format(config.log_format)
    stopper = Stopper()
    stopper.install()
    try:
        return _Job(config, stopper).run()
    except KeyboardInterrupt:
        logger.warning("the shard in hand is dropped; start the job again, and it goes on")
        return stopper.status


class _Job:
    def __init__(self, config: BatchConfig, stopper: Stopper) -> None:
        self.config, self.stopper = config, stopper
        self.output = OUTPUTS[config.format]

    def run(self) -> int:
        """The exit status."""
        config = self.config
        if config.dry_run:
            return self._dry_run()
        self.output.require()
        with ExitStack() as stack:
            store = open_store(config.output)
            servers = servers_of(config)
            about = manifest_of(config, servers)
            is_new = MANIFEST not in store.names()
            if not is_new:  # before --rescan adds a list
                settle(store, about, logger.info)
            plan = open_plan(store, config.inputs, sys.stdin.buffer, config.shard_size, config.rescan, logger.info)
            if is_new:  # not for INPUTs that cannot be listed
                settle(store, about, logger.info)
            todo = self._todo(plan, store)
            if not todo:
                logger.info("nothing is left to do: all %d shards of this run are in %s", plan.shards, store.address)
                return 0
            output = self._output_to(store)
            work = stack.enter_context(work_of(config, output, servers))
            return self._make(plan, store, work, output, about.hash, todo)

    def _make(self, plan: Plan, store: Store, work: Work, output: Output, settings: str, todo: list[int]) -> int:
        config = self.config
        progress = Progress(plan.images_of(todo), len(todo), config.log_format)
        shards = self._shards(plan, store, output, todo)
        what = "ended early"
        try:
            for shard in make_shards(shards, work, output, settings, progress.note):
                progress.shards += 1
                logger.debug("shard %d is in its place", shard.number)
            what = "done" if progress.shards == len(todo) else what
        finally:
            progress.end(what)
        if progress.shards == len(todo):
            return int(config.strict and progress.errors.total() > 0)
        return self.stopper.status

    def _shards(self, plan: Plan, store: Store, output: Output, todo: list[int]) -> Iterator[Shard]:
        """The shards to be made, until the job is to stop."""
        for number in todo:
            if self.stopper.is_stopping:
                return
            items = read_entries(plan.entries(number), _READ_AHEAD)
            yield Shard(number, items, store.write(name_of(number, output)))

    def _todo(self, plan: Plan, store: Store) -> list[int]:
        i, n = self.config.share
        output = self._output_to(store)
        there = store.names()
        return [number for number in range(i, plan.shards, n) if name_of(number, output) not in there]

    def _output_to(self, store: Store) -> Output:
        return unpacked(self.output, store) if self.config.unpack else self.output

    def _dry_run(self) -> int:
        """Counts what would be made, and writes nothing."""
        config = self.config
        with tempfile.TemporaryDirectory() as folder:
            store: Store = FolderStore(Path(folder))
            output = open_existing(config.output)
            if output is not None and LISTS[0] in output.names():
                store = output
            plan = open_plan(store, config.inputs, sys.stdin.buffer, config.shard_size, False, logger.info)
            todo = self._todo(plan, output or store)
            images = plan.images_of(todo)
        counted = "an unknown number of images (tars)" if images is None else f"{images} images"
        print(f"{plan.shards} shards in all; {len(todo)} left for this run, with {counted}")
        return 0


def name_of(number: int, output: Output) -> str:
    """The name of a shard's file."""
    return f"{number:06d}{output.suffix}"
