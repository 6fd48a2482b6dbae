"""From the images of shards to shards in their place: images overlap, shards too, and all come out in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from sam2_amg.batch.items import InputError, Item, Problem, Result
from sam2_amg.batch.outputs.base import Output, ShardWriter


@dataclass(frozen=True)
class Finished:
    """An image that is ready to be written, and what is counted of it."""

    encoded: Any
    masks: int
    problem: Problem | None
    milliseconds: dict[str, float]


Finish = Callable[[Result], Finished]
"""The last step of an image, before it is written in its turn. It may run in any thread."""


class Work(Protocol):
    """What makes masks: this process, or servers. A group of at most `group_size` images is encoded together."""

    group_size: int
    most_under_way: int  # images that have been started and are not written

    def start(self, group: Sequence[Item]) -> list[Future[Finished]]:
        """Begins with images; what they become, in their order."""
        ...

    def close(self) -> None:
        """Drops what is not begun."""
        ...


@dataclass(frozen=True)
class Shard:
    """A shard to be made: its number, its images, and the place that it is written to."""

    number: int
    items: Iterable[Item]
    place: AbstractContextManager[BinaryIO]


@dataclass(frozen=True)
class _End:
    shard: Shard


def once(items: Iterable[Item], place_of: Callable[[str], str | None]) -> Iterator[Item]:
    """The images; those whose masks would lie in the place of an earlier image's have a Problem."""
    taken: set[str] = set()
    for item in items:
        place = place_of(item.name)
        if place is None or isinstance(item.data, Problem):
            yield item
        elif place in taken:
            yield Item(item.name, Problem("same_name", f"another image of the shard is {place!r}, too"))
        else:
            taken.add(place)
            yield item


def groups_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The images by `size` in their order, the last group with what is left."""
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def make_shards(
    shards: Iterable[Shard], work: Work, output: Output, settings: str, note: Callable[[Finished], None]
) -> Iterator[Shard]:
    """Makes shards one after another; yields each when it is in its place.

    The next shard's images are under way while the last ones of a shard are finished. `settings` is the settings' hash.
    `note` is called for each image. Raises what reading, working and writing raise; shards that are not whole are
    dropped then.
    """
    under_way: deque[tuple[Shard, Future[Finished]] | _End] = deque()
    with _Writing(output, settings, note) as writing:
        try:
            for shard in shards:
                for group in groups_of(once(shard.items, output.place_of), work.group_size):
                    while under_way and len(under_way) + len(group) > work.most_under_way:
                        yield from writing.write(under_way.popleft())
                    under_way.extend((shard, future) for future in work.start(group))
                under_way.append(_End(shard))
        except InputError:  # shards that were read are written
            while any(isinstance(step, _End) for step in under_way):
                yield from writing.write(under_way.popleft())
            raise
        while under_way:
            yield from writing.write(under_way.popleft())


class _Writing:
    """The shard that is being written."""

    def __init__(self, output: Output, settings: str, note: Callable[[Finished], None]) -> None:
        self.output, self.settings, self.note = output, settings, note
        self._place = ExitStack()
        self._writer: ShardWriter | None = None

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *error: Any) -> None:
        self._place.__exit__(*error)

    def write(self, step: tuple[Shard, Future[Finished]] | _End) -> Iterator[Shard]:
        """Writes an image, or ends a shard and yields it."""
        shard = step.shard if isinstance(step, _End) else step[0]
        if self._writer is None:
            self._writer = self.output.begin(self._place.enter_context(shard.place), self.settings)
        if isinstance(step, _End):
            self._writer.finish()
            self._writer = None
            self._place.close()
            yield step.shard
        else:
            finished = step[1].result()
            self._writer.add(finished.encoded)
            self.note(finished)
