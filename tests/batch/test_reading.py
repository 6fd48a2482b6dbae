"""Files and members of tars -> bytes, in order, ahead of who takes them."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import fsspec
import pytest
from helpers import wait_until

from sam2_amg.batch.inputs.listing import Entry, list_inputs
from sam2_amg.batch.inputs.reading import read_entries
from sam2_amg.batch.items import Item, Problem
from sam2_amg.errors import StartupError

ODD = [b"with space.jpg", b"line\nbreak.jpg", b"not utf8 \xff.jpg"]


def file(path: str) -> Entry:
    return Entry("file", path, path)


def tar(path: str) -> Entry:
    return Entry("tar", path, path)


def read(*entries: Entry, ahead: int = 2, largest: int = 1000) -> list[Item]:
    return list(read_entries(entries, ahead, largest))


def code(item: Item) -> str:
    assert isinstance(item.data, Problem)
    assert "\n" not in item.data.message
    item.data.message.encode()
    return item.data.code


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def packed(*members: tuple[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def test_files_of_any_name_in_order(tmp_path: Path) -> None:
    for number, name in enumerate(ODD):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(b"%d" % number)
    found = read(*list_inputs([str(tmp_path)], io.BytesIO()))
    assert {os.fsencode(item.name): item.data for item in found} == {name: b"%d" % i for i, name in enumerate(ODD)}
    many = [file(os.path.join(tmp_path, os.fsdecode(ODD[number % 3]))) for number in range(100)]
    assert [item.data for item in read(*many, ahead=7)] == [b"%d" % (number % 3) for number in range(100)]


def test_what_cannot_be_read_has_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "good.jpg").write_bytes(b"good")
    (tmp_path / "empty.jpg").touch()
    names = ["pipe.jpg", "folder.jpg", "loop.jpg", "nothing \udcff\n.jpg", "nul\0.jpg", "x" * 300]
    entries = [Entry("file", f"{tmp_path}/{name}", name) for name in names]
    *problems, good, empty = read(*entries, file(f"{tmp_path}/good.jpg"), file(f"{tmp_path}/empty.jpg"))
    assert [item.name for item in problems] == names
    assert {code(item) for item in problems} == {"unreadable"}
    assert (good.data, empty.data) == (b"good", b"")
    assert problems[3].data == Problem("unreadable", "The file cannot be read (No such file or directory).")


def test_a_file_that_may_be_read_later_ends_the_run() -> None:
    """Linux says EIO at the beginning of this one, as it does of a disk that fails, or was pulled out."""
    with pytest.raises(
        StartupError, match=r"mem cannot be read \(Input/output error\); start the job again when it can"
    ):
        read(file("/proc/self/mem"))


def test_a_folder_that_is_not_mounted_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, listed = Entry("file", "photos/a/b.jpg", "a/b.jpg"), file("photos/c.jpg")
    for _ in range(2):  # it is missing, and then empty
        for entry in (found, listed, Entry("tar", "photos/0.tar", "0.tar")):
            with pytest.raises(StartupError, match=r"because photos/? is missing or empty; start the job again"):
                read(entry)
        (tmp_path / "photos").mkdir(exist_ok=True)
    absolute = file(f"{tmp_path}/photos/a/b.jpg")
    with pytest.raises(StartupError, match=r"/photos is missing or empty.*; or give it an empty file"):
        read(absolute)
    (tmp_path / "photos" / "other.jpg").write_bytes(b"x")
    assert code(*read(absolute)) == "unreadable"
    assert [code(item) for item in read(found, listed, file("gone.jpg"))] == ["unreadable"] * 3


def test_large_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "limit.jpg").write_bytes(b"x" * 1000)
    (tmp_path / "more.jpg").write_bytes(b"x" * 1001)
    sparse, limit, more = read(*(file(f"{tmp_path}/{name}.jpg") for name in ("sparse", "limit", "more")))
    assert sparse.data == more.data == Problem("too_large", "The file has more than 1000 bytes (--max_body_mib).")
    assert limit.data == b"x" * 1000


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_images_of_a_tar(tmp_path: Path, mode: str) -> None:
    odd = [os.fsdecode(name) for name in ODD]
    members = [(name, name.encode(errors="replace")) for name in [*odd, "/a/../b.PNG", "0001.json", "d/._x.jpg"]]
    data = packed(*members, ("big.jpg", b"x" * 1001), ("last.jpg", b""), mode=mode)
    (tmp_path / "0.tar").write_bytes(data)
    found = read(Entry("tar", f"{tmp_path}/0.tar", "shards/0.tar"))
    assert [item.name for item in found] == [
        f"shards/0/{name}" for name in [*odd, "/a/../b.PNG", "big.jpg", "last.jpg"]
    ]
    assert [item.data for item in found[:4]] == [data for _, data in members[:4]]
    assert (code(found[4]), found[5].data) == ("too_large", b"")


def test_members_that_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("a.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert read(tar(f"{tmp_path}/0.tar")) == []


def headed(kind: str, size: int) -> bytes:
    """The header of a member of a type, without its data."""
    info = tarfile.TarInfo("extended")
    info.type, info.size = kind.encode(), size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _damage_header(data: bytes) -> bytes:
    at = data.index(b"2.jpg")
    return data[:at] + b"\xff" + data[at + 1 :]


@pytest.mark.parametrize(
    ("break_it", "whole"),
    [
        (lambda data: data[: data.index(b"2.jpg")], 2),  # between members
        (lambda data: data[: data.index(b"2.jpg") + 100], 2),  # in a header
        (lambda data: data[: data.index(b"2.jpg") + 512 + 100], 2),  # in a file
        (_damage_header, 2),
        (lambda data: data[: data.index(b"2.jpg")] + headed("L", 2 << 20) + bytes(3 << 20), 2),  # a name of 2 MiB
        (lambda data: data[: data.index(b"2.jpg")] + headed("x", 28) + b"28 GNU.sparse.map=a\n".ljust(512, b"\0"), 2),
        (lambda data: data[: data.index(b"2.jpg")] + headed("x", 9) + b"0 path=a\n".ljust(512, b"\0"), 2),
        (lambda data: b"", 0),
        (lambda data: b"no tar" * 1000, 0),
        (lambda data: packed(*((f"{i}.jpg", os.urandom(900)) for i in range(3)), mode="w:gz")[:-200], 2),
    ],
)
def test_broken_tars(tmp_path: Path, break_it: Callable[[bytes], bytes], whole: int) -> None:
    data = break_it(packed(*((f"{i}.jpg", b"x" * 700) for i in range(4))))
    (tmp_path / "0.tar").write_bytes(data)
    *images, end = read(tar(f"{tmp_path}/0.tar"))
    assert [item.name for item in images] == [f"{tmp_path}/0/{i}.jpg" for i in range(whole)]
    assert all(isinstance(item.data, bytes) for item in images)
    assert (end.name, code(end)) == (f"{tmp_path}/0.tar", "broken_tar")


def test_a_broken_tar_at_an_address_is_no_fault_of_the_network() -> None:
    sparse = headed("x", 22) + b"22 GNU.sparse.map=a\n\n\n".ljust(512, b"\0") + packed(("a.jpg", b"a"))
    fsspec.filesystem("memory").pipe("/tars/0.tar", sparse)
    assert [code(item) for item in read(tar("memory://tars/0.tar"))] == ["broken_tar"]


def test_a_tar_that_is_not_there_and_files_around_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    a = file(f"{tmp_path}/a.jpg")
    found = read(a, a, tar("nowhere.tar"), a)
    assert [item.name for item in found] == [a.name, a.name, "nowhere.tar", a.name]
    assert code(found[2]) == "unreadable"


def test_reading_is_ahead_by_a_bounded_number(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    taken = 0

    def entries() -> Iterator[Entry]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield file(f"{tmp_path}/a.jpg")

    items = read_entries(entries(), 3, 1000)
    seen = [(next(items).data, taken)[1] for _ in range(10)]
    assert seen == [number + 3 for number in range(1, 11)]
    items.close()
    assert taken == 13
    assert readers() == []


@pytest.mark.parametrize("kind", ["file", "tar"])
def test_closing_early_ends_threads_and_closes_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "0.tar").write_bytes(packed(*((f"{i}.jpg", b"x" * 100) for i in range(50))))
    (tmp_path / "a.jpg").write_bytes(b"a")
    entries = [tar(f"{tmp_path}/0.tar")] if kind == "tar" else [file(f"{tmp_path}/a.jpg")] * 50
    items = read_entries(entries, 2, 1000)
    next(items)
    assert readers()
    items.close()
    assert readers() == []
    assert not [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)]


def test_other_threads_read_while_one_waits(tmp_path: Path) -> None:
    """Slow files overlap: each of these waits until another is being read."""
    memory = fsspec.filesystem("memory")
    barrier = threading.Barrier(2, timeout=5)

    class Slow(type(memory)):  # type: ignore[misc]
        protocol = "slow-memory"
        cachable = False

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
            barrier.wait()
            return b"slow"

    fsspec.register_implementation("slow-memory", Slow, clobber=True)
    found = read(*(file(f"slow-memory://{i}.jpg") for i in range(4)), ahead=2)
    assert [item.data for item in found] == [b"slow"] * 4


def test_a_bucket(s3: str) -> None:
    bucket = fsspec.filesystem("s3")
    members = [(f"{i}.jpg", b"%d" % i * 300) for i in range(4)]
    files = {
        "a b.jpg": b"a" * 1000,
        "ä.jpg": b"",
        "c::d.jpg": b"c",
        "large.jpg": b"x" * 1001,
        "0.tar": packed(*members),
    }
    files["1.tar"] = files["0.tar"][:1700]  # within the second
    bucket.pipe({f"{s3}/{name}": data for name, data in files.items()})
    entries = [*list_inputs([s3], io.BytesIO()), Entry("file", f"{s3}/no.jpg", "no.jpg")]
    found = {item.name: item for item in read(*entries)}
    assert found["a b.jpg"].data == b"a" * 1000
    assert (found["ä.jpg"].data, found["c::d.jpg"].data) == (b"", b"c")
    assert [found[f"0/{name}"].data for name, _ in members] == [data for _, data in members]
    assert found["1/0.jpg"].data == members[0][1]
    assert [code(found[name]) for name in ("large.jpg", "no.jpg", "1.tar")] == [
        "too_large", "unreadable", "broken_tar"
    ]  # fmt: skip
    assert len(found) == 11


@pytest.mark.parametrize("said", ["InvalidAccessKeyId", "RequestTimeTooSkewed", "AccessDenied"])
@pytest.mark.parametrize("kind", [file, tar])
def test_keys_that_a_bucket_does_not_take(
    s3: str, monkeypatch: pytest.MonkeyPatch, said: str, kind: Callable[[str], Entry]
) -> None:
    """They end the run; a file alone that may not be read is a row."""

    class Refusing(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(403)
            body = f"<Error><Code>{said}</Code><Message>no</Message></Error>".encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        try:
            if said == "AccessDenied":
                assert code(*read(kind("s3://bucket/a"))) == "unreadable"
            else:
                with pytest.raises(StartupError, match="start the job again"):
                    read(kind("s3://bucket/a"))
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            server.shutdown()


def test_threads_end_with_the_iterator(tmp_path: Path) -> None:
    (tmp_path / "other.jpg").touch()
    start = time.monotonic()
    assert len(read(*[file(f"{tmp_path}/nothing")] * 10, ahead=8)) == 10
    wait_until(lambda: not readers())
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["file", "tar"])
def test_a_server_that_is_down_ends_the_run(kind: Literal["file", "tar"]) -> None:
    """Its shard is not done: its images are there when the server is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(StartupError, match=r"0 cannot be read \(.*start the job again"):
        read(Entry(kind, f"{address}/0", "0"))
