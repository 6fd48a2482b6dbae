"""Shards are made in their order, overlap, and are whole or not there."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import pytest

from sam2_amg.batch.items import InputError, Item, Problem, Result
from sam2_amg.batch.outputs.base import Output
from sam2_amg.batch.work import Finished, Shard, groups_of, make_shards
from sam2_amg.errors import StartupError


class Lines:
    """A writer of names."""

    def __init__(self, stream: BinaryIO, settings: str) -> None:
        self.stream = stream
        stream.write(f"begin {settings}\n".encode())

    def add(self, encoded: str) -> None:
        """A line."""
        self.stream.write(f"{encoded}\n".encode())

    def finish(self) -> None:
        """The last line."""
        self.stream.write(b"end\n")


OUTPUT = Output(".txt", lambda result: result.name, Lines)


class Names:
    """Work of threads that end in any order."""

    def __init__(self, group_size: int, most: int) -> None:
        self.group_size, self.most_under_way = group_size, most
        self.groups: list[list[str]] = []
        self.pool = ThreadPoolExecutor(4)

    def start(self, group: Sequence[Item]) -> list[Future[Finished]]:
        """Begins."""
        self.groups.append([item.name for item in group])
        return [self.pool.submit(self._finish, item) for item in group]

    def close(self) -> None:
        """Ends."""
        self.pool.shutdown()

    def _finish(self, item: Item) -> Finished:
        if item.data == b"fails":
            raise ValueError(item.name)
        problem = item.data if isinstance(item.data, Problem) else None
        found = problem or []
        return Finished(OUTPUT.encode(Result(item.name, "", None, found)), 0, problem, {})


class Places:
    """Streams by number; those whose block raised are dropped."""

    def __init__(self) -> None:
        self.whole: dict[int, str] = {}
        self.dropped: list[int] = []

    @contextmanager
    def write(self, number: int) -> Iterator[BinaryIO]:
        """A stream that is kept if all goes well."""
        stream = io.BytesIO()
        try:
            yield stream
        except BaseException:
            self.dropped.append(number)
            raise
        self.whole[number] = stream.getvalue().decode()


def shards_of(places: Places, *sizes: int, bad: str = "") -> Iterator[Shard]:
    for number, size in enumerate(sizes):
        names = (f"{number}-{i}" for i in range(size))
        items = [Item(name, b"fails" if name == bad else b"") for name in names]
        yield Shard(number, items, places.write(number))


@pytest.mark.parametrize(("group_size", "most"), [(1, 1), (1, 7), (3, 3), (4, 20)])
def test_shards_have_their_images_in_order(group_size: int, most: int) -> None:
    places, work, seen = Places(), Names(group_size, most), list[Finished]()
    made = [each.number for each in make_shards(shards_of(places, 5, 0, 9), work, OUTPUT, "hash", seen.append)]
    work.close()
    assert made == [0, 1, 2]
    for number, size in enumerate((5, 0, 9)):
        lines = ["begin hash", *(f"{number}-{i}" for i in range(size)), "end"]
        assert places.whole[number].splitlines() == lines
    assert len(seen) == 14
    assert max(map(len, work.groups)) <= group_size
    assert work.groups[0] == [f"0-{i}" for i in range(min(group_size, 5))]  # a group has images of one shard


def test_what_raises_drops_its_shard_alone() -> None:
    places, work = Places(), Names(2, 8)
    with pytest.raises(ValueError, match="1-2"):
        list(make_shards(shards_of(places, 3, 4, 2, bad="1-2"), work, OUTPUT, "hash", lambda _: None))
    work.close()
    assert places.whole.keys() == {0}
    assert places.dropped == [1]


@pytest.mark.parametrize("most", [2, 20])
def test_shards_that_were_read_are_written_if_the_next_cannot_be(most: int) -> None:
    places, work = Places(), Names(2, most)

    def items() -> Iterator[Item]:
        yield Item("0", b"")
        yield Item("1", b"")
        raise InputError("the network is down")

    shards = [*shards_of(places, 5), Shard(1, items(), places.write(1))]
    with pytest.raises(StartupError, match="the network is down"):
        list(make_shards(shards, work, OUTPUT, "hash", lambda _: None))
    work.close()
    assert places.whole.keys() == {0}


def test_an_image_in_the_place_of_another_is_not_started() -> None:
    places, work, counted = Places(), Names(2, 8), []
    items = [Item(name, b"") for name in ("a", "b", "a")]
    output = replace(OUTPUT, place_of=lambda name: name)
    list(make_shards([Shard(0, items, places.write(0))], work, output, "hash", counted.append))
    work.close()
    assert places.whole[0].split("\n")[1:4] == ["a", "b", "a"]
    assert [finished.problem and finished.problem.code for finished in counted] == [None, None, "same_name"]


def test_groups() -> None:
    items = [Item(str(i), b"") for i in range(7)]
    assert [len(group) for group in groups_of(items, 3)] == [3, 3, 1]
    assert list(groups_of([], 3)) == []
