"""INPUTs of every kind -> the images and tars that they stand for."""

from __future__ import annotations

import functools
import http.server
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from helpers import ROOT

from sam2_amg.batch.inputs.addresses import is_address
from sam2_amg.batch.inputs.listing import Entry, list_inputs
from sam2_amg.batch.inputs.names import expand, is_image, prefix_of_members
from sam2_amg.errors import StartupError

ODD = [b"with space.jpg", b"line\nbreak.jpg", b"not utf8 \xff\xfe.jpg", b"\xc3\xa4.JPG", b"back\\slash.jpg"]


def listed(*inputs: object, stdin: bytes = b"") -> list[Entry]:
    return list(list_inputs([os.fspath(i) if isinstance(i, Path) else str(i) for i in inputs], io.BytesIO(stdin)))


def names(*inputs: object, stdin: bytes = b"") -> list[str]:
    return [entry.name for entry in listed(*inputs, stdin=stdin)]


def touch(folder: Path, *paths: str | bytes) -> None:
    for path in paths:
        file = os.path.join(os.fsencode(folder), os.fsencode(path))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb"):
            pass


def test_a_file_is_listed_as_given_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "photo")
    assert listed(tmp_path / "photo") == [Entry("file", f"{tmp_path}/photo", f"{tmp_path}/photo")]


def test_a_folder_is_sorted_by_bytes_with_its_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/z.png", "a.jpg", "a-b.jpg", "B.TIFF", "a/deep/er/x.heic", "note.txt", ".hidden.jpg")
    touch(tmp_path, ".hidden/x.jpg", "a/._x.jpg", "a/0000.tar", "ä.webp")
    expected = ["B.TIFF", "a-b.jpg", "a.jpg", "a/0000.tar", "a/deep/er/x.heic", "a/z.png", "b.jpg", "ä.webp"]
    assert names(tmp_path) == expected
    found = listed(f"{tmp_path}/")
    assert [entry.at for entry in found] == [f"{tmp_path}/{name}" for name in expected]
    assert [entry.name for entry in found if entry.kind == "tar"] == ["a/0000.tar"]


def test_a_large_folder_is_sorted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_amg.batch.inputs.folders._TOGETHER", 7)
    touch(tmp_path, *(f"{i * 37 % 100}.jpg" for i in range(100)), "5/0.jpg")
    assert names(tmp_path) == sorted([f"{i}.jpg" for i in range(100)] + ["5/0.jpg"])


def test_names_of_any_bytes(tmp_path: Path) -> None:
    touch(tmp_path, *ODD)
    assert [os.fsencode(name) for name in names(tmp_path)] == sorted(ODD)
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in ODD]
    assert [os.fsencode(name) for name in names("-", stdin=b"\0".join(paths) + b"\0")] == paths


def test_links(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg", "in/b.jpg")
    (tmp_path / "in" / "file.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (tmp_path / "in" / "nothing.jpg").symlink_to("nowhere")
    (tmp_path / "in" / "itself.jpg").symlink_to("itself.jpg")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    assert names(tmp_path / "in") == ["b.jpg", "file.jpg", "folder/a.jpg", "itself.jpg", "nothing.jpg"]


def test_lists(tmp_path: Path) -> None:
    text = b"b.jpg\r\n\n a.txt \nshards/0.TGZ\nnot utf8 \xff.jpg\n\r\nb.jpg"
    (tmp_path / "list").write_bytes(text)
    expected = ["b.jpg", " a.txt ", "shards/0.TGZ", "not utf8 \udcff.jpg", "b.jpg"]
    assert names(f"@{tmp_path}/list") == expected
    assert names("-", stdin=text) == expected
    assert [entry.kind for entry in listed("-", stdin=text)] == ["file", "file", "tar", "file", "file"]
    assert names("-", stdin=b"a\nb.jpg\0c\r\0\0d") == ["a\nb.jpg", "c\r", "d"]
    assert names("-", stdin=b"") == []
    assert names("-", stdin=b"\xef\xbb\xbfa.jpg\nb.jpg") == ["a.jpg", "b.jpg"]  # as editors of Windows save it


def test_a_list_longer_than_what_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_amg.batch.inputs.listing._PIECE", 10)
    lines = [f"photo {i:0{i % 10}}"[:10] for i in range(100)]
    assert names("-", stdin="\n".join(lines).encode()) == lines
    with pytest.raises(StartupError, match=r"standard input has a path of more than 1 MiB"):
        names("-", stdin=b"short\n" + b"x" * 40)


def test_a_list_that_a_pipe_gives_in_parts() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as stream, open(writer, "wb", buffering=0) as pipe:

        def write() -> None:
            for part in (b"a\nb", b".jpg\0c", b".jpg\0"):
                pipe.write(part)
                ready.wait(0.05)
            pipe.close()

        ready = threading.Event()
        thread = threading.Thread(target=write)
        thread.start()
        assert [entry.name for entry in list_inputs(["-"], stream)] == ["a\nb.jpg", "c.jpg"]
        thread.join()


def test_braces(tmp_path: Path) -> None:
    assert list(expand("a{08..11}b")) == ["a08b", "a09b", "a10b", "a11b"]
    assert list(expand("{1..0}/{9..10}")) == ["1/9", "1/10", "0/9", "0/10"]
    assert list(expand("{a..b}{1}{..}")) == ["{a..b}{1}{..}"]
    touch(tmp_path, "0.tar", "1.tar", "{5..6}.jpg")
    assert [entry.kind for entry in listed(f"{tmp_path}/{{0..1}}.tar", f"{tmp_path}/{{5..6}}.jpg")] == [
        "tar", "tar", "file"
    ]  # fmt: skip
    with pytest.raises(StartupError, match=r"/2\.tar does not exist"):
        listed(f"{tmp_path}/{{0..2}}.tar")


def test_what_is_an_address() -> None:
    assert all(map(is_address, ("s3://b/a.jpg", "simplecache::s3://b/a.jpg", "https://h/a")))
    assert not any(map(is_address, ("a::b.jpg", "/a://b.jpg", "a:/b", "ä://b", "a b://c")))


def test_names_of_images_and_tars() -> None:
    assert is_image("a/.b/c.JPEG")
    assert not is_image("a/.b.jpg")
    assert not is_image("jpg")
    assert [prefix_of_members(name) for name in ("a/0.tar", "0.tar.gz", "x.TGZ")] == ["a/0/", "0/", "x/"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist; give"),
        ("@nowhere.txt", "@nowhere.txt cannot be read (No such file or directory); give"),
        ("/dev/null", "/dev/null is neither a file nor a folder; give"),
        ("nosuch://a/b", "nosuch://a/b cannot be opened (Protocol not known: nosuch); give"),
        ("memory://nowhere", "memory://nowhere does not exist; give"),
        ("gs://bucket/a", "gs://bucket/a needs a package that is not installed; pip install gcsfs"),
        ("http://127.0.0.1:9/a.jpg", "http://127.0.0.1:9/a.jpg "),
    ],
)
def test_what_cannot_be_listed_is_named(given: str, message: str) -> None:
    with pytest.raises(StartupError) as raised:
        listed(given)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_standard_input_is_read_once() -> None:
    with pytest.raises(StartupError, match="given twice"):
        listed("-", "-", stdin=b"a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(StartupError, match=r"/a/? cannot be listed"):
            names(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o700)


def test_addresses(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    top = f"memory://{tmp_path.name}"
    for name in ("b.jpg", "sub dir/ä.png", "sub dir/0.tar", "no.txt"):
        memory.pipe(f"{top}/{name}", b"")
    memory.pipe(f"{top}/list", f"{top}/b.jpg\nc.jpg\n".encode())
    assert names(top) == ["b.jpg", "sub dir/0.tar", "sub dir/ä.png"]
    assert listed(f"{top}/b.jpg") == [Entry("file", f"{top}/b.jpg", f"{top}/b.jpg")]
    assert [entry.at for entry in listed(f"{top}/")] == [f"{top}/{name}" for name in names(top)]
    assert names(f"@{top}/list") == [f"{top}/b.jpg", "c.jpg"]
    touch(tmp_path, *ODD)
    assert [os.fsencode(name) for name in names(f"file://{tmp_path}")] == sorted(ODD)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_web(web: str, tmp_path: Path) -> None:
    touch(tmp_path, "a/b.jpg", "a/c/d.tar")
    assert names(f"{web}/a/b.jpg", f"{web}/a/c/d.tar") == [f"{web}/a/b.jpg", f"{web}/a/c/d.tar"]
    assert names(f"{web}/a/") == ["b.jpg", "c/d.tar"]
    with pytest.raises(StartupError, match=r"nothing\.jpg does not exist"):
        names(f"{web}/nothing.jpg")


def test_a_bucket(s3: str) -> None:
    bucket = fsspec.filesystem("s3")
    keys = ["photos/ä b.jpg", "photos/sub/c.png", "photos/sub/0.tar", "photos/no.txt", "photos2/x.jpg", "photos//e.jpg"]
    for key in keys:
        bucket.pipe(f"{s3}/{key}", b"x")
    assert names(f"{s3}/photos") == ["/e.jpg", "sub/0.tar", "sub/c.png", "ä b.jpg"]
    assert [entry.at for entry in listed(f"{s3}/photos/")][1] == f"{s3}/photos/sub/0.tar"
    assert names(s3) == ["photos//e.jpg", "photos/sub/0.tar", "photos/sub/c.png", "photos/ä b.jpg", "photos2/x.jpg"]
    assert names(f"{s3}/photos/ä b.jpg") == [f"{s3}/photos/ä b.jpg"]
    with pytest.raises(StartupError, match=r"s3://\S+/nothing does not exist"):
        names(f"{s3}/nothing")
    with pytest.raises(StartupError, match=r"s3://no-such-bucket does not exist"):
        names("s3://no-such-bucket")


def test_a_chain_of_file_systems(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("in/a.jpg", b"a")
    assert names(f"zip://in::{tmp_path}/photos.zip") == ["a.jpg"]


def test_a_bucket_of_several_pages(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam2_amg.batch.inputs.addresses._PAGE", 3)
    fsspec.filesystem("s3").pipe({f"{s3}/{i}.jpg": b"" for i in range(7)})
    assert names(s3) == [f"{i}.jpg" for i in range(7)]


def test_nothing_here_imports_torch() -> None:
    program = (
        "import sys, sam2_amg.batch.inputs.plan, sam2_amg.batch.inputs.reading; "
        "sys.exit(bool({'torch', 'fsspec', 'flask'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
