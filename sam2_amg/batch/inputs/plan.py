"""Which images are in which shard: the list of inputs, written once, and cut the same way in every run."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from sam2_amg.batch.inputs.addresses import is_address
from sam2_amg.batch.inputs.known_names import NameHashes, key_of
from sam2_amg.batch.inputs.list_file import Header, ListWriter, read_header, read_lines
from sam2_amg.batch.inputs.listing import Entry, list_inputs
from sam2_amg.batch.inputs.names import prefix_of_members
from sam2_amg.batch.stores.base import Store
from sam2_amg.errors import StartupError

LISTS = tuple(f"inputs-{number:04d}.jsonl" for number in range(1000))
"""The names of lists in a store: the first run's, and those that --rescan adds."""
_TAR = -1  # in place of a number of images
_PIECE = 1 << 20  # bytes
_OWN = re.compile(r"files/|\d{6,}\.tar$")  # what a job writes that looks like an input, below the store
_DOUBTFUL = 1000  # names that are compared at once, since their hashes are equal


class _List:
    """A list in a store, of which any part can be read: there, or in a copy that is removed when this is.

    `first` is the offset of the line after the header.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        with store.read(name) as stream:
            self._copy = None if _is_file(stream) else tempfile.TemporaryFile()  # noqa: SIM115
            if self._copy is not None:
                weakref.finalize(self, self._copy.close)
                shutil.copyfileobj(stream, self._copy, _PIECE)
        with self.open() as stream:
            line = stream.readline()
        self.header, self.first = read_header(line, f"{store.address}/{name}"), len(line)

    @contextmanager
    def open(self, start: int = 0) -> Iterator[BinaryIO]:
        """The list from an offset in bytes. One at a time."""
        with ExitStack() as stack:
            stream = self._copy or stack.enter_context(self._store.read(self._name))
            stream.seek(start)
            yield stream

    def entries(self) -> Iterator[Entry]:
        """All inputs of it."""
        with self.open(self.first) as stream:
            yield from read_lines(stream)


def _is_file(stream: BinaryIO) -> bool:
    try:
        stream.fileno()
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return False
    return True


@dataclass(frozen=True)
class _Cuts:
    """Where shards are: an item a shard, as numbers of few bytes. `before` is the index of a text in `texts`."""

    source: array[int] = field(default_factory=lambda: array("H"))
    start: array[int] = field(default_factory=lambda: array("Q"))
    end: array[int] = field(default_factory=lambda: array("Q"))
    before: array[int] = field(default_factory=lambda: array("I"))
    images: array[int] = field(default_factory=lambda: array("q"))
    texts: list[str] = field(default_factory=lambda: [""])

    def add(self, source: int, start: int, end: int, before: int, images: int) -> None:
        """The next shard."""
        self.source.append(source)
        self.start.append(start)
        self.end.append(end)
        self.before.append(before)
        self.images.append(images)


@dataclass(frozen=True)
class Plan:
    """The shards, numbered from 0, and what is in each. `images` counts files; those in tars are unknown, and count 0.

    `given` are the INPUTs of the first run.
    """

    given: list[str]
    images: int
    _lists: list[_List]
    _cuts: _Cuts

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._cuts.images)

    def entries(self, number: int) -> list[Entry]:
        """The inputs of a shard: files, or one tar. Reads them from the list."""
        cuts = self._cuts
        if not 0 <= number < self.shards:
            raise IndexError(number)
        with self._lists[cuts.source[number]].open(cuts.start[number]) as stream:
            lines = stream.read(cuts.end[number] - cuts.start[number]).splitlines()
        return list(read_lines(lines, cuts.texts[cuts.before[number]]))

    def images_of(self, numbers: Iterable[int]) -> int | None:
        """How many images are in shards; None if one of them is a tar."""
        counts = [self._cuts.images[number] for number in numbers]
        return None if _TAR in counts else sum(counts)


def open_plan(
    store: Store,
    inputs: Sequence[str],
    stdin: BinaryIO,
    shard_size: int,
    rescan: bool,
    report: Callable[[str], None],
    apart: bool = False,
) -> Plan:
    """The plan of a store: that of the list which the first run wrote, and of those that rescans added.

    Without a list, INPUTs are listed and the list is written; of several processes that do so at once one writes it,
    and all use that one. `rescan` lists again and appends what is not known. With `apart`, images of tars may have no
    other's name. `report` gets lines for people. Raises StartupError if INPUTs cannot be listed, a name comes twice,
    there is no image, or the list has another shard size.
    """
    is_new = LISTS[0] not in store.names()
    if is_new:
        with _listed(inputs, stdin, shard_size, store, apart) as (stream, _):
            is_new = store.create(LISTS[0], lambda place: shutil.copyfileobj(stream, place, _PIECE))
    lists = _lists_of(store)
    for one in lists:
        _check_shard_size(one.header, shard_size, store)
    if rescan and not is_new:
        report(_rescan(store, lists, inputs, stdin, shard_size, apart))
        lists += _lists_of(store, len(lists))
    elif list(inputs) not in [one.header.inputs for one in lists]:
        given = " ".join(lists[0].header.inputs)
        report(f"the list in {store.address} is used, which was made of: {given}; --rescan adds what is given here")
    cuts = _Cuts()
    for number, one in enumerate(lists):
        _cut(one, number, shard_size, cuts)
    images = sum(count for count in cuts.images if count != _TAR)
    return Plan(lists[0].header.inputs, images, lists, cuts)


def _lists_of(store: Store, first: int = 0) -> list[_List]:
    there = store.names()
    return [_List(store, name) for name in itertools.takewhile(there.__contains__, LISTS[first:])]


def _check_shard_size(header: Header, shard_size: int, store: Store) -> None:
    if header.shard_size != shard_size:
        raise StartupError(
            f"--shard_size {shard_size} is not that of the shards in {store.address}; "
            f"give --shard_size {header.shard_size}, or another --output"
        )


@contextmanager
def _listed(
    inputs: Sequence[str], stdin: BinaryIO, shard_size: int, store: Store, apart: bool
) -> Iterator[tuple[BinaryIO, NameHashes]]:
    """A new list in a file that is removed at the end, to be read from its beginning; and the hashes of its names.
    The job's own tars and unpacked files are left out."""
    hashes = NameHashes()
    with tempfile.TemporaryFile() as stream:
        writer = ListWriter(stream, Header(shard_size, list(inputs)))
        top = _whole(store.address).rstrip("/") + "/"
        for entry in list_inputs(inputs, stdin):
            if not _is_own(entry, top):
                writer.add(entry)
                hashes.add(entry)
        if not len(hashes):
            raise StartupError(
                f"there is no image in {' '.join(inputs)}; give images, or folders, tars or lists of them"
            )
        _check_twice(stream, hashes)
        if apart:
            _check_apart(stream)
        stream.seek(0)
        yield stream, hashes


def _is_own(entry: Entry, top: str) -> bool:
    """Whether a file was found in the store `top`, and the job wrote it."""
    if entry.at == entry.name:  # it is named, and was not found
        return False
    at = _whole(entry.at)
    return at.startswith(top) and _OWN.match(at, len(top)) is not None


def _whole(at: str) -> str:
    """A path from the root on, or an address."""
    return at if is_address(at) else os.path.abspath(at)


def _check_twice(stream: BinaryIO, hashes: NameHashes) -> None:
    """Raises StartupError if two inputs of a list would have the same name in the output."""
    doubtful = iter(hashes.doubtful(_DOUBTFUL).tolist())
    place = next(doubtful, None)
    if place is None:
        return
    seen: dict[bytes, tuple[int, str]] = {}
    for number, entry in enumerate(_entries(stream)):
        if number != place:
            continue
        first, at = seen.setdefault(key_of(entry), (number, entry.at))
        if first != number:
            raise StartupError(
                f"{entry.name} comes twice: input {first + 1} is {at}, and input {number + 1} is {entry.at}; "
                "give one of them, or the folder that both are in"
            )
        place = next(doubtful, None)


def _check_apart(stream: BinaryIO) -> None:
    """Raises StartupError for a tar whose images may be called as others are."""
    tars = {prefix_of_members(entry.name): entry.name for entry in _entries(stream) if entry.kind == "tar"}
    for entry in _entries(stream) if tars else ():
        parts = entry.name.split("/")
        for count in range(1, len(parts)):
            if (tar := tars.get("/".join(parts[:count]) + "/")) is not None:
                problem = f"with --unpack, images of {tar} and of {entry.name} may have one name, and so one file"
                raise StartupError(f"{problem}; leave --unpack out, or give one of them another --output")


def _entries(stream: BinaryIO) -> Iterator[Entry]:
    """The inputs of a whole list."""
    stream.seek(0)
    stream.readline()
    return read_lines(stream)


def _rescan(
    store: Store, lists: list[_List], inputs: Sequence[str], stdin: BinaryIO, shard_size: int, apart: bool
) -> str:
    """Writes what is in none of the lists as the next one; says what was found."""
    known, count = NameHashes(), 0
    for one in lists:
        for entry in one.entries():
            known.add(entry)
    with _listed(inputs, stdin, shard_size, store, apart) as (listed, hashes), tempfile.TemporaryFile() as added:
        writer = ListWriter(added, Header(shard_size, list(inputs)))
        for entry in itertools.compress(_entries(listed), hashes.missing_in(known)):
            writer.add(entry)
            count += 1
        if not count:
            return "--rescan found no new inputs"
        if len(lists) == len(LISTS):
            raise StartupError(f"{store.address} has {len(lists)} lists already; give the new inputs another --output")
        added.seek(0)
        name = LISTS[len(lists)]
        if not store.create(name, lambda place: shutil.copyfileobj(added, place, _PIECE)):
            return f"another run has just written {name}, which is used"
    return f"--rescan found {count} new inputs, which are in {name}"


def _cut(one: _List, source: int, shard_size: int, cuts: _Cuts) -> None:
    """Cuts a list into shards: each tar is one, and files in a row make shards of `shard_size`."""
    offset, before, count, begin = one.first, 0, 0, (0, 0)
    with one.open(one.first) as stream:
        for line in stream:
            kind = line[:1]
            if kind == b"{":
                cuts.texts.append(json.loads(line)["at"])
                before = len(cuts.texts) - 1
            else:
                if count and (kind == b"[" or count == shard_size):
                    cuts.add(source, begin[0], offset, begin[1], count)
                    count = 0
                if kind == b"[":
                    cuts.add(source, offset, offset + len(line), before, _TAR)
                else:
                    begin = begin if count else (offset, before)
                    count += 1
            offset += len(line)
    if count:
        cuts.add(source, begin[0], offset, begin[1], count)
