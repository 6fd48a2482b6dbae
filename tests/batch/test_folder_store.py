"""Outputs in a folder: whole or not there, whatever happens."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from batch.racers import killed_while_writing, output_of, race

from sam2_amg.batch.stores.base import StoreError
from sam2_amg.batch.stores.choose import open_store
from sam2_amg.batch.stores.folder import FolderStore

HOST = socket.gethostname().replace(".", "-")
_WRITE = """
import resource, sys
from sam2_amg.batch.stores.base import StoreError
from sam2_amg.batch.stores.choose import open_store
{before}
store = open_store(sys.argv[1])
try:
    with store.write("shard.jsonl") as file:
        for _ in range(200):
            file.write(b"x" * 65536)
except StoreError as error:
    print(error)
import os
print(os.listdir(sys.argv[1]))
"""
_LIMITED = _WRITE.format(before="resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))")
_MOUNT = "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', sys.argv[1]], check=True)"
_TINY_DISK = _WRITE.format(before=f"import subprocess; {_MOUNT}")
_NOBODY = _WRITE.format(before="import os; os.setuid(65534)")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "out")


def test_a_file_is_there_when_the_block_ends(store: FolderStore, tmp_path: Path) -> None:
    with store.write("a.jsonl") as file:
        file.write(b"one")
        assert store.names() == set()
        assert not (tmp_path / "out" / "a.jsonl").exists()
    assert store.names() == {"a.jsonl"}
    with store.write("a.jsonl") as file:
        file.write(b"two")
        with store.read("a.jsonl") as old:
            assert old.read() == b"one"
    with store.read("a.jsonl") as new:
        assert new.read() == b"two"
    assert os.listdir(tmp_path / "out") == ["a.jsonl"]


def test_nothing_is_left_of_a_block_that_raises(store: FolderStore, tmp_path: Path) -> None:
    with suppress(KeyError), store.write("a.jsonl") as file:
        file.write(b"half")
        raise KeyError
    assert os.listdir(tmp_path / "out") == []


def test_folders_of_names_are_made(store: FolderStore, tmp_path: Path) -> None:
    with store.write("deep/er/b.json") as file:
        file.write(b"{}")
    assert (tmp_path / "out/deep/er/b.json").read_bytes() == b"{}"
    assert store.names() == set()
    name = "caf\udce9/\udcff.json"  # bytes that are no UTF-8
    assert store.create(name, lambda file: None)
    assert os.path.exists(os.fsencode(tmp_path) + b"/out/caf\xe9/\xff.json")
    longest = "n" * 255
    with store.write(longest) as file:
        file.write(b"fits")
    assert longest in store.names()


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "", "a//b", "a\0b"])
def test_names_stay_within_the_folder(store: FolderStore, name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no name of a file within"), store.write(name):
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_a_killed_writer_leaves_no_file_and_its_rest_is_removed(tmp_path: Path) -> None:
    killed_while_writing(str(tmp_path))
    (rest,) = tmp_path.iterdir()
    assert rest.name.startswith(".shard.jsonl.")
    assert FolderStore(tmp_path).names() == set()
    assert rest.exists(), "it is too young to be removed"
    os.utime(rest, (time.time() - 90,) * 2)
    FolderStore(tmp_path)
    assert not rest.exists()


def test_files_that_are_written_are_left_alone(store: FolderStore, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    foreign = folder / ".a.jsonl.other-host.7-0123456789abcdef.tmp"
    foreign.touch()
    long_ago = time.time() - 3600
    os.utime(foreign, (long_ago, long_ago))
    with store.write("a.jsonl") as file:
        (own,) = (path for path in folder.iterdir() if path != foreign)
        os.utime(own, (long_ago, long_ago))
        assert FolderStore(folder).names() == set()
        assert {*folder.iterdir()} == {own, foreign}
        os.utime(foreign, (long_ago - 86400,) * 2)
        FolderStore(folder)
        assert {*folder.iterdir()} == {own}
        file.write(b"whole")
    assert (folder / "a.jsonl").read_bytes() == b"whole"


def test_other_hidden_files_are_files(store: FolderStore, tmp_path: Path) -> None:
    for name in (".hidden", "notes.tmp", f".{HOST}.tmp"):
        path = tmp_path / "out" / name
        path.touch()
        os.utime(path, (0, 0))
    assert FolderStore(tmp_path / "out").names() == {".hidden", "notes.tmp", f".{HOST}.tmp"}


def test_one_process_alone_creates_a_file(tmp_path: Path) -> None:
    for i, winner in enumerate(race(str(tmp_path), 30)):
        assert (tmp_path / f"{i}.json").read_text() == str(winner) * 1000
    assert len(os.listdir(tmp_path)) == 30


def test_create_without_hard_links(store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on FAT, which has none."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert store.create("a.json", lambda file: file.write(b"first") and None)
    assert not store.create("a.json", lambda file: file.write(b"second") and None)
    assert (tmp_path / "out" / "a.json").read_bytes() == b"first"
    assert store.names() == {"a.json"}


def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    answer = output_of(_LIMITED, tmp_path)
    assert answer.stdout.splitlines()[0].startswith(f"{tmp_path}/shard.jsonl: the file is over the limit"), answer
    assert answer.stdout.splitlines()[1:] == ["[]"]
    assert answer.stderr == ""


def test_a_full_disk(tmp_path: Path) -> None:
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no small disk can be mounted here")
    answer = output_of(_TINY_DISK, tmp_path, unshared=True)
    assert answer.stdout.splitlines()[0].startswith(f"{tmp_path}/shard.jsonl: the disk is full; make room"), answer
    assert answer.stdout.splitlines()[1:] == ["[]"]
    assert answer.stderr == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_permission() -> None:
    folder = Path("/var")
    answer = output_of(_NOBODY, folder)
    assert f"{folder}/shard.jsonl: permission denied; choose another folder" in answer.stdout, answer


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"/file: a part of the path is a file, and no folder"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"/file/below: a part of the path is a file"):
        open_store(f"file://{tmp_path}/file/below")
    (tmp_path / "folder" / "a.json").mkdir(parents=True)
    with (
        pytest.raises(StoreError, match="it is a folder, and no file"),
        FolderStore(tmp_path / "folder").write("a.json"),
    ):
        pass
    with pytest.raises(StoreError, match=r"none: "), FolderStore(tmp_path / "folder").read("none"):
        pass
