"""The list of inputs, written once, and how it is cut into shards."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from helpers import ROOT

from sam2_amg.batch.inputs.known_names import NameHashes
from sam2_amg.batch.inputs.listing import Entry
from sam2_amg.batch.inputs.plan import LISTS, Plan, open_plan
from sam2_amg.errors import StartupError


class Folder:
    """A store in a folder, without care for failures. `winner` is written just before the first list would be."""

    def __init__(self, path: Path, winner: bytes | None = None) -> None:
        self.address, self.path, self.winner = str(path), path, winner
        path.mkdir(exist_ok=True)

    def names(self) -> set[str]:
        return set(os.listdir(self.path))

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        with (self.path / name).open("rb") as stream:
            yield stream

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        with (self.path / name).open("wb") as stream:
            yield stream

    def create(self, name: str, fill: Callable[[BinaryIO], None]) -> bool:
        if self.winner is not None:
            (self.path / name).write_bytes(self.winner)
        try:
            with (self.path / name).open("xb") as stream:
                fill(stream)
        except FileExistsError:
            return False
        return True


class Bucket(Folder):
    """A store whose files are no files of this machine."""

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        yield io.BytesIO((self.path / name).read_bytes())


@pytest.fixture(params=[Folder, Bucket])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    made: Folder = request.param(tmp_path / "out")
    return made


def plan_of(
    store: Folder,
    *inputs: str,
    stdin: Sequence[str] = (),
    shard_size: int = 3,
    rescan: bool = False,
    said: list[str] | None = None,
    apart: bool = False,
) -> Plan:
    said = [] if said is None else said
    text = b"".join(os.fsencode(line) + b"\0" for line in stdin)
    return open_plan(store, inputs, io.BytesIO(text), shard_size, rescan, said.append, apart)


def shards_of(plan: Plan) -> list[list[str]]:
    return [[entry.name for entry in plan.entries(number)] for number in range(plan.shards)]


def test_shards_of_files_and_tars(store: Folder) -> None:
    plan = plan_of(store, "-", stdin=["a", "b", "c", "d", "x.tar", "y.tar", "e", "f", "g"])
    assert shards_of(plan) == [["a", "b", "c"], ["d"], ["x.tar"], ["y.tar"], ["e", "f", "g"]]
    assert (plan.shards, plan.images, plan.given) == (5, 7, ["-"])
    assert plan.entries(2) == [Entry("tar", "x.tar", "x.tar")]
    assert (plan.images_of([0, 1, 4]), plan.images_of([0, 2]), plan.images_of([])) == (7, None, 0)
    assert plan.entries(4)[1] == Entry("file", "f", "f")
    with pytest.raises(IndexError):
        plan.entries(5)


def test_a_shard_holds_several_folders(store: Folder, tmp_path: Path) -> None:
    for name in ("1/a.jpg", "1/b.jpg", "2/c.jpg", "2/d.jpg", "2/t.tar", "2/u.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    plan = plan_of(store, f"{tmp_path}/1", f"{tmp_path}/2", f"{tmp_path}/1/a.jpg")
    shards = [plan.entries(number) for number in (3, 0, 1, 2)]
    paths = [[entry.at.removeprefix(f"{tmp_path}/") for entry in shard] for shard in shards]
    assert paths == [["2/u.jpg", "1/a.jpg"], ["1/a.jpg", "1/b.jpg", "2/c.jpg"], ["2/d.jpg"], ["2/t.tar"]]
    assert [entry.name for entry in shards[0]] == ["u.jpg", f"{tmp_path}/1/a.jpg"]


def test_names_of_any_bytes_and_a_later_run_that_lists_nothing(store: Folder) -> None:
    odd = [" a b ", "line\nbreak\r", "not utf8 \udcff\udc80", "ä\u2028😀", '"[{', "\udcc3(.tar"]
    assert shards_of(plan_of(store, "-", stdin=odd)) == [odd[:3], odd[3:5], odd[5:]]
    said: list[str] = []
    assert shards_of(plan_of(store, "-", stdin=["other"], said=said)) == [odd[:3], odd[3:5], odd[5:]]
    assert said == []
    assert store.names() == {LISTS[0]}
    (store.path / LISTS[0]).read_text("ascii")


def test_other_inputs_are_not_looked_at_and_this_is_said(store: Folder) -> None:
    plan_of(store, "-", stdin=["a"])
    said: list[str] = []
    assert shards_of(plan_of(store, "nowhere", said=said)) == [["a"]]
    assert said == [
        f"the list in {store.address} is used, which was made of: -; --rescan adds what is given here",
    ]


def test_another_shard_size_is_refused(store: Folder) -> None:
    plan_of(store, "-", stdin=["a"])
    for rescan in (False, True):
        with pytest.raises(StartupError, match=r"--shard_size 4 is not that .*; give --shard_size 3, or"):
            plan_of(store, "-", shard_size=4, rescan=rescan)


def test_rescans_append_what_is_new(store: Folder) -> None:
    plan_of(store, "-", stdin=["a", "gone", "b", "t.tar", "c"])
    first, said = (store.path / LISTS[0]).read_bytes(), [""]
    for _ in range(2):  # the second finds nothing
        plan = plan_of(store, "-", stdin=["new", "c", "b", "u.tar", "a", "t.tar", "d"], rescan=True, said=said)
        assert shards_of(plan) == [["a", "gone", "b"], ["t.tar"], ["c"], ["new"], ["u.tar"], ["d"]]
        assert (plan.images, plan.given) == (6, ["-"])
    plan = plan_of(store, "-", stdin=["e", "d"], rescan=True)
    assert shards_of(plan)[6:] == [["e"]]
    assert (store.path / LISTS[0]).read_bytes() == first
    assert store.names() == set(LISTS[:3])
    assert said[1:] == ["--rescan found 3 new inputs, which are in inputs-0001.jsonl", "--rescan found no new inputs"]
    assert shards_of(plan_of(store, "-")) == shards_of(plan)


def test_a_job_is_no_input_of_itself(store: Folder, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (store.path / "files").mkdir()
    for name in ("000000.tar", "files/a.jpg.png"):
        (store.path / name).touch()
    assert shards_of(plan_of(store, str(tmp_path))) == [["a.jpg"]]
    (tmp_path / "b.jpg").touch()
    assert shards_of(plan_of(store, str(tmp_path), rescan=True)) == [["a.jpg"], ["b.jpg"]]


@pytest.mark.parametrize("below", ["photos", ""])
def test_photographs_may_lie_below_the_output(store: Folder, below: str) -> None:
    (store.path / "photos" / "files").mkdir(parents=True)
    for name in ("photos/a.jpg", "photos/files/b.jpg", "photos/000000.tar", "other.tar"):
        (store.path / name).touch()
    if not isinstance(store, Bucket):
        found = shards_of(plan_of(store, str(store.path / below)))
        top = "" if below else "photos/"
        expected = [[f"{top}000000.tar"], [f"{top}a.jpg", f"{top}files/b.jpg"]]
        assert found == ([] if below else [["other.tar"]]) + expected


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["a.tar", "b/x.jpg", "a.jpg"], None),
        (["a/x.jpg", "a.tar"], r"images of a\.tar and of a/x\.jpg may have one name"),
        (["a.tar", "a/b/x.jpg"], r"images of a\.tar and of a/b/x\.jpg may"),
        (["a.tar", "a/b.tar"], r"images of a\.tar and of a/b\.tar may"),
    ],
)
def test_tars_whose_images_may_be_called_as_others(store: Folder, names: list[str], same: str | None) -> None:
    with pytest.raises(StartupError, match=same) if same else nullcontext():
        plan_of(store, "-", stdin=names, apart=True)
    assert (store.names() == set()) == (same is not None)  # nothing stays of a job that is refused
    plan_of(store, "-", stdin=names)
    plan_of(store, "-", apart=True)  # a job that is begun goes on


def test_a_first_rescan_lists_once(store: Folder) -> None:
    assert shards_of(plan_of(store, "-", stdin=["a"], rescan=True)) == [["a"]]


def test_the_loser_of_a_race_uses_the_winners_list(tmp_path: Path) -> None:
    plan_of(Folder(tmp_path / "winner"), "-", stdin=["w", "x"])
    store = Folder(tmp_path / "out", (tmp_path / "winner" / LISTS[0]).read_bytes())
    assert shards_of(plan_of(store, "-", stdin=["a"])) == [["w", "x"]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], r"a comes twice: input 1 is a, and input 3 is a; give one of them"),
        (["x/0.tar", "x/0.tgz"], r"x/0.tgz comes twice: input 1 is x/0.tar, and input 2 is x/0.tgz"),
        (["0.tar", "0", "0.tar/"], None),
    ],
)
def test_names_that_come_twice(store: Folder, names: list[str], message: str | None) -> None:
    if message is None:
        assert plan_of(store, "-", stdin=names).shards
        return
    with pytest.raises(StartupError, match=message):
        plan_of(store, "-", stdin=names)
    assert store.names() == set()


def test_the_same_name_in_two_folders(store: Folder, tmp_path: Path) -> None:
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    with pytest.raises(
        StartupError, match=r"a\.jpg comes twice: input 1 is \S+/1/a\.jpg, and input 2 is \S+/2/a\.jpg;"
    ):
        plan_of(store, f"{tmp_path}/1", f"{tmp_path}/2")


def test_equal_hashes_of_other_names_are_no_twins(store: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the first 64 bits of all hashes were equal."""

    def all_doubtful(self: NameHashes, most: int) -> np.ndarray:
        return np.arange(len(self))

    monkeypatch.setattr(NameHashes, "doubtful", all_doubtful)
    assert plan_of(store, "-", stdin=["a", "b", "c"]).images == 3


def test_hashes_against_sets() -> None:
    def hashes(names: list[str]) -> NameHashes:
        made = NameHashes()
        for name in names:
            made.add(Entry("file", name, name))
        return made

    names = [str(number % 700) for number in range(1000)]
    assert hashes(names).doubtful(1000).tolist() == [*range(300), *range(700, 1000)]
    assert len(hashes(names).doubtful(10)) == 20
    assert hashes(names[:700]).doubtful(10).tolist() == []
    others = [str(number) for number in range(0, 2000, 3)]
    assert hashes(names).missing_in(hashes(others)).tolist() == [name not in others for name in names]


def test_no_image(store: Folder) -> None:
    with pytest.raises(StartupError, match="there is no image in -; give"):
        plan_of(store, "-")
    assert store.names() == set()


@pytest.mark.parametrize("text", [b"", b"{}\n", b'{"version": 2, "shard_size": 3, "inputs": []}\n', b"[1]\n"])
def test_a_strange_list_is_refused(store: Folder, text: bytes) -> None:
    (store.path / LISTS[0]).write_bytes(text)
    with pytest.raises(StartupError, match=r"out/inputs-0000.jsonl is no list of inputs of this version; remove"):
        plan_of(store, "-")


@pytest.mark.slow  # test_hashes_against_sets has the same without counting bytes
def test_memory_of_two_million_names(tmp_path: Path) -> None:
    """The names alone have 120 MB; the list's peak is 16 bytes a name, and 24 while hashes are sorted."""
    with (tmp_path / "list").open("w") as file:
        file.writelines(f"photographs/{number % 1000:03d}/{number:040d}.jpg\n" for number in range(2_000_000))
    program = (
        "import io, resource, sys; from pathlib import Path; from batch.test_plan import Folder, plan_of\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = peak(); folder = Path(sys.argv[1])\n"
        "for rescan in (False, True):\n"
        "    plan = plan_of(Folder(folder / 'out'), f'@{folder}/list', shard_size=1000, rescan=rescan)\n"
        "    print(plan.shards, plan.images, peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    for line, most in zip(done.stdout.splitlines(), (100, 160), strict=True):
        shards, images, mib = map(int, line.split())
        assert (shards, images) == (2000, 2_000_000)
        assert mib < most
