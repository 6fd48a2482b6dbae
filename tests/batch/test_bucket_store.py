"""Outputs in a bucket, against a server of S3's interface."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from batch.racers import killed_in_an_upload, killed_while_writing, race

from sam2_amg.batch.stores.base import StoreError
from sam2_amg.batch.stores.bucket import BucketStore
from sam2_amg.batch.stores.choose import open_store


@pytest.fixture
def store(s3: str) -> BucketStore:
    return BucketStore(f"{s3}/masks/")


def test_a_file_is_there_when_the_block_ends(store: BucketStore) -> None:
    with store.write("a.jsonl") as file:
        file.write(b"one")
        assert store.names() == set()
    assert store.names() == {"a.jsonl"}
    with store.write("a.jsonl") as file:
        file.write(b"twice")
        with store.read("a.jsonl") as old:
            assert old.read() == b"one"
    with store.read("a.jsonl") as new:
        assert (new.read(2), new.read()) == (b"tw", b"ice")
        new.seek(-3, 2)
        assert new.read() == b"ice"


def test_nothing_is_left_of_a_block_that_raises(store: BucketStore) -> None:
    with suppress(KeyError), store.write("a.jsonl") as file:
        file.write(b"half")
        raise KeyError
    assert store.names() == set()


def test_names_are_those_right_below_the_prefix(s3: str, store: BucketStore) -> None:
    for place, name in ((store, "deep/b.json"), (store, "empty"), (BucketStore(s3), "masks-of-others")):
        with place.write(name):
            pass
    assert store.names() == {"empty"}
    assert BucketStore(s3).names() == {"masks-of-others"}
    with BucketStore(f"{s3}/masks").write("later"):
        pass
    assert store.names() == {"empty", "later"}, "listings are not kept"
    with store.read("deep/b.json") as file:
        assert file.read() == b""


@pytest.mark.slow
def test_an_upload_of_many_parts(store: BucketStore) -> None:
    size = (101 << 20) + 1  # above one PUT
    with store.write("large") as file:
        for _ in range(101):
            file.write(bytes(1 << 20))
        file.write(b"x")
    with store.read("large") as file:
        assert file.seek(0, 2) == size
        file.seek(-2, 2)
        assert file.read() == b"\0x"


def test_a_killed_writer_leaves_no_file(s3: str) -> None:
    killed_while_writing(s3)
    assert BucketStore(s3).names() == set()


def test_a_writer_that_is_killed_in_an_upload_leaves_no_file(s3: str, s3_endpoint: str, store: BucketStore) -> None:
    killed_in_an_upload(f"{s3}/masks", s3_endpoint)
    assert store.names() == set()


def test_one_process_alone_creates_a_file(s3: str) -> None:
    *_, winner = race(s3, 4)
    with BucketStore(s3).read("3.json") as file:
        assert file.read() == str(winner).encode() * 1000


def test_memory_is_a_place_as_well() -> None:
    store = open_store("memory://place/masks")
    assert store.names() == set()
    with store.write("a/b.json") as file:
        file.write(b"{}")
    assert store.create("c.json", lambda file: None)
    assert not store.create("c.json", lambda file: None)
    assert store.names() == {"c.json"}


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "", "\udcff.json"])
def test_names_that_cannot_be(name: str) -> None:
    store = open_store("memory://names")
    with pytest.raises(StoreError, match=r"no name of a file within|no UTF-8"), store.write(name):
        pass


def refusal(address: str) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_name_the_place_and_the_way_out(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "s3://no-such-bucket/masks: there is no such bucket; make it" in refusal("s3://no-such-bucket/masks")
    assert "gs://bucket: a package is missing" in refusal("gs://bucket")
    assert "foo://bucket is no address of a bucket" in refusal("foo://bucket")
    assert "s3:// names no bucket" in refusal("s3://")
    store = open_store(s3)
    with pytest.raises(StoreError, match=r"/none: there is no such file"), store.read("none") as file:
        file.read()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert f"{s3}: no credentials (" in refusal(s3)


def test_a_server_that_does_not_answer(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    answer = refusal(s3)
    assert answer.startswith(f"{s3}: Could not connect to the endpoint URL")
    assert "start the same command again" in answer


def test_a_full_local_disk_is_named(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreError, match="TMPDIR chooses another folder"), BucketStore(s3).write("a"):
        pass
