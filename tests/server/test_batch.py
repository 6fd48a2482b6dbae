"""POST /batch over HTTP: images and archives, lines as they finish, slow and leaving clients, bombs."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from engine_doubles import GatedGenerator
from helpers import assert_error, drawn_image, png, wait_until
from local_server import LocalServer, serving

from sam2_amg.answers.render import render
from sam2_amg.config import Limits
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.errors import RequestError
from sam2_amg.pipeline.base import Generator, MaskRecord
from sam2_amg.server.archives import entries_of

pytestmark = pytest.mark.xdist_group("local")
IMAGES = [drawn_image(30 + i, 40, seed=i) for i in range(3)]
FILES = {f"{i}.png": png(image) for i, image in enumerate(IMAGES)}
MIB = 1 << 20


def tar_of(files: dict[str, bytes], folder: str = "a folder") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("a folder")
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def in_order(answer: requests.Response) -> list[dict[str, Any]]:
    """The lines by their index."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(len(lines)))
    return sorted(lines, key=lambda line: line["index"])


def ways() -> dict[str, dict[str, Any]]:
    files = list(FILES.items())
    return {
        "form": {"files": [("image", file) for file in files]},
        "tar": {"data": tar_of(FILES), "headers": {"Content-Type": "application/x-tar"}},
        "zip": {"data": zip_of(FILES), "headers": {"Content-Type": "application/zip"}},
        "archives in a form": {
            "files": [
                ("image", ("a.zip", zip_of(dict(files[:1]), zipfile.ZIP_STORED))),
                ("image", files[1]),
                ("image", ("b.tar", tar_of(dict(files[2:])))),
            ]
        },
    }


@pytest.mark.parametrize("way", ways())
def test_each_image_gets_its_answer(local: LocalServer, small_generator: Generator, way: str) -> None:
    query = "?format=records&points_per_side=3"
    lines = in_order(requests.post(f"{local.url}/batch{query}", timeout=60, **ways()[way]))
    assert [line["name"] for line in lines] == list(FILES)
    url = f"{local.url}/segment{query}"
    for line, data in zip(lines, FILES.values(), strict=True):
        assert line["masks"] == requests.post(url, files={"image": data}, timeout=60).json()


@pytest.mark.parametrize("name", ["rle", "coco", "polygons"])
def test_formats(local: LocalServer, small_generator: Generator, name: str) -> None:
    files = {"image": ("my cat.png", FILES["0.png"])}
    (line,) = in_order(requests.post(f"{local.url}/batch?format={name}", files=files, timeout=60))
    records = small_generator.generate(IMAGES[0])
    assert line["masks"] == json.loads(render(name, records, (30, 40), "my cat.png").data)


def test_an_error_is_the_line_of_its_image(local: LocalServer) -> None:
    files = {**FILES, "text.txt": b"no image", "nested.zip": zip_of(FILES), "empty.png": b""}
    bad = bytearray(zip_of(files, zipfile.ZIP_STORED))
    at = bad.index(FILES["1.png"]) + 30
    bad[at] ^= 1  # its checksum is wrong
    kind = {"Content-Type": "application/zip"}
    answer = requests.post(f"{local.url}/batch", data=bytes(bad), headers=kind, timeout=60)
    codes = [line.get("error", {}).get("code") for line in in_order(answer)]
    assert codes == [None, "malformed_archive", None, "not_an_image", "not_an_image", "empty_body"]


def test_a_batch_of_one_is_a_batch(small_generator: Generator, decoders: DecoderPool) -> None:
    with serving(small_generator, decoders, Limits(max_batch_images=1)) as server:
        two = requests.post(f"{server.url}/batch", files=[("image", FILES["0.png"])] * 2, timeout=60)
    assert_error(two, 413, "too_many_images")


MANY = {str(i): b"a" for i in range(101)}
REFUSED: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "a format that is no JSON": ({"files": {"image": b"a"}}, "?format=png", 400, "invalid_parameter"),
    "an option of another format": ({"files": {"image": b"a"}}, "?ids=1", 400, "invalid_parameter"),
    "an unknown parameter": ({"files": {"image": b"a"}, "data": {"nms": "1"}}, "", 400, "unknown_parameter"),
    "no image": ({"files": {"image": ("a.zip", zip_of({}))}}, "", 400, "missing_field"),
    "no archive": ({"data": b"abc", "headers": {"Content-Type": "application/zip"}}, "", 400, "malformed_archive"),
    "another type": ({"data": b"abc", "headers": {"Content-Type": "image/png"}}, "", 415, "unsupported_media_type"),
    "101 images": ({"files": [("image", b"a")] * 101}, "", 413, "too_many_images"),
    "101 images in a zip": (
        {"files": {"image": zip_of(MANY)}},
        "",
        413,
        "too_many_images",
    ),
    "101 images in a tar": (
        {"files": {"image": tar_of(MANY)}},
        "",
        413,
        "too_many_images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_as_a_whole(local: LocalServer, name: str) -> None:
    sent, query, status, code = REFUSED[name]
    assert_error(requests.post(f"{local.url}/batch{query}", timeout=60, **sent), status, code)
    assert local.engine.in_flight == 0


def test_names_fit_into_json() -> None:
    (entry,) = entries_of(tar_of({"a\udcff" + "b" * 2000: b"c"}), 9, MIB)
    assert entry.name == "a?" + "b" * 998


def test_bombs() -> None:
    large = zip_of({"a": bytes(300)})
    (entry,) = entries_of(large, 9, 299)
    with pytest.raises(RequestError, match="over the limit"):
        entry.read()
    with pytest.raises(RequestError, match="All files of the archive together"):
        entries_of(zip_of({str(i): bytes(300) for i in range(9)}), 9, 300)
    lying = bytearray(zip_of({"a": bytes(5 * MIB)}))
    at = lying.rindex(b"PK\x01\x02") + 24  # its size in the directory
    lying[at : at + 4] = (10).to_bytes(4, "little")
    (entry,) = entries_of(bytes(lying), 9, 10)
    with pytest.raises(RequestError, match="CRC"):  # of ten bytes
        entry.read()
    directory = b"PK\x01\x02".ljust(46, b"\0") * 100_000
    with pytest.raises(RequestError, match="max_batch_images"):
        entries_of(b"PK\x03\x04" + directory + zip_of({"a": b""}), 100, MIB)
    with pytest.raises(RequestError, match="neither stored nor deflated"):
        entries_of(zip_of({"a": b"a"}, zipfile.ZIP_LZMA), 9, MIB)[0].read()
    with pytest.raises(RequestError, match="cannot be read"):
        entries_of(chain_of_headers(2000), 9, MIB)


def chain_of_headers(count: int) -> bytes:
    """A tar in which each header is for the next one: its reader calls itself for each."""
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 1
    return (header.tobuf() + bytes(512)) * count + bytes(1024)


def tar_header(kind: bytes, data: bytes) -> bytes:
    """A header of a tar that is for the next file, or for all, and its data."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, len(data)
    return header.tobuf() + data.ljust(-(-len(data) // 512) * 512, b"\0")


def pax(records: dict[str, str]) -> bytes:
    """The records of an extended header."""
    return b"".join(
        next(b"%d %s" % (n, rest) for n in range(len(rest), len(rest) + 9) if n == len(b"%d %s" % (n, rest)))
        for rest in (f"{key}={value}\n".encode() for key, value in records.items())
    )


def test_headers_of_a_tar_cost_no_more_than_they_are_long() -> None:
    """tarfile searches rows of digits in a time, and copies what a header says of all files into a memory, that grow
    with their square."""
    digits = tar_header(tarfile.XHDTYPE, b"1" * 1_000_000)
    records = pax({f"{i:x}": "y" for i in range(50_000)})
    for_all = tar_header(tarfile.XGLTYPE, records + bytes(MIB))
    negative = bytearray(tar_header(tarfile.XHDTYPE, records))
    negative[124:136] = (-600).to_bytes(12, "big", signed=True)
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 8 * 32 + sum(negative[156:512]))
    folders = b"".join(tar_header(tarfile.DIRTYPE, b"") for _ in range(500))
    some = tar_header(tarfile.XHDTYPE, b"1" * 60_000) + tar_header(tarfile.REGTYPE, b"a")
    tracemalloc.start()
    try:
        begun = time.process_time()
        for data in (digits, for_all + folders, negative, some * 9):
            with pytest.raises(RequestError, match="cannot be read"):
                entries_of(data + bytes(1024), 100, MIB)
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_form(form: int) -> None:
    """Long names, names that are not ASCII, and records that say nothing of a name."""
    names = ["short.jpg", "é.jpg", "d" * 90 + "/" + "f" * 90, *(["n" * 300] if form != tarfile.USTAR_FORMAT else [])]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers={"comment": "for all"}) as archive:
        for i, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = i + 600, {"comment": "for one"}
            archive.addfile(info, io.BytesIO(bytes([i]) * (i + 600)))
    found = entries_of(buffer.getvalue(), 9, MIB)
    assert [(entry.name, entry.read()) for entry in found] == [(n, bytes([i]) * (i + 600)) for i, n in enumerate(names)]


def test_a_sparse_file_is_refused_alone() -> None:
    sparse = tarfile.TarInfo("old")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(sparse.tobuf())
    header[482] = 1  # a block of holes follows
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    holes = bytes(512)
    said = pax({"GNU.sparse.major": "1", "GNU.sparse.name": "new"})
    new = tar_header(tarfile.XHDTYPE, said) + tar_header(tarfile.REGTYPE, b"new")
    data = bytes(header) + holes + bytes(512) + new + tar_header(tarfile.REGTYPE, b"whole") + bytes(1024)
    *sparse_ones, whole = entries_of(data, 9, MIB)
    assert [entry.name for entry in sparse_ones] == ["old", "new"]
    for entry in sparse_ones:
        with pytest.raises(RequestError, match="sparse"):
            entry.read()
    assert whole.read() == b"whole"


@pytest.mark.parametrize("length", [700, 1024 + 512 + 10, 4 * 512])
def test_an_archive_that_is_cut_off(length: int) -> None:
    whole = tar_of({"a": bytes(512)})[: 4 * 512 + 1024]  # folder, link, file, its data, the end
    assert [entry.read() for entry in entries_of(whole[:-512], 9, MIB)] == [bytes(512)]
    with pytest.raises(RequestError, match="cannot be read"):
        entries_of(whole[:length], 9, MIB)
    with pytest.raises(RequestError, match="cannot be read"):
        entries_of(zip_of(FILES)[:-5], 9, MIB)


class Halting(GatedGenerator):
    """Finds a mask of many runs, once the gate is open."""

    def generate(self, image: np.ndarray, config: Any = None) -> list[MaskRecord]:
        super().generate(image, config)
        counts = [1] * 200_000
        record = {"segmentation": {"size": [400, 500], "counts": counts}, "area": 100_000}
        return [record] * 4  # type: ignore[list-item]


@pytest.fixture
def halting(decoders: DecoderPool) -> Iterator[tuple[LocalServer, Halting]]:
    generator = Halting()
    with serving(generator, decoders, Limits(queue_size=4, send_timeout=1.5)) as server:
        try:
            yield server, generator
        finally:
            generator.gate.set()


def begin(server: LocalServer, images: int, receive_buffer: int = 0) -> socket.socket:
    """A client that sends a batch, and reads nothing yet."""
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    address = urlsplit(server.url)
    client.connect((address.hostname, address.port))
    client.settimeout(20)
    body = tar_of({f"{i}.png": FILES["0.png"] for i in range(images)})
    head = f"POST /batch HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: batch{images}\r\nContent-Length: {len(body)}\r\n"
    client.sendall(f"{head}Content-Type: application/x-tar\r\n\r\n".encode() + body)
    return client


def test_images_of_a_batch_leave_slots_to_others(halting: tuple[LocalServer, Halting]) -> None:
    server, generator = halting
    with begin(server, 20):
        wait_until(lambda: server.engine.in_flight == 2)  # a worker, and one that waits
        time.sleep(0.1)
        assert server.engine.in_flight == 2
        states = [requests.get(f"{server.url}/requests/batch20/{i}", timeout=10).json().get("state") for i in range(3)]
        assert states[0] == "segmenting"
        assert states[2] is None
        generator.gate.set()


def test_lines_come_as_they_finish_and_clients_that_leave_cancel_the_rest(
    halting: tuple[LocalServer, Halting],
) -> None:
    server, generator = halting
    with begin(server, 20) as client:
        generator.gate.set()
        received = b""
        while b'"index":0' not in received:
            received += client.recv(MIB)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding: chunked" in received.lower()
        generator.gate.clear()
    wait_until(lambda: requests.get(f"{server.url}/requests/batch20", timeout=10).json()["state"] == "cancelled")
    generator.gate.set()
    wait_until(lambda: server.engine.in_flight == 0)
    assert generator.started < 20


def test_who_reads_slowly_slows_only_itself(halting: tuple[LocalServer, Halting]) -> None:
    """Lines of 1.6 MB each: what is not read is not made, and after --send_timeout the client is cut off."""
    server, generator = halting
    generator.gate.set()
    with begin(server, 20, receive_buffer=4096):
        wait_until(lambda: generator.started >= 2)
        others = requests.post(f"{server.url}/upload_rle", files={"image": FILES["1.png"]}, timeout=30)
        assert others.status_code == 200
        state = lambda: requests.get(f"{server.url}/requests/batch20", timeout=10).json()["state"]  # noqa: E731
        wait_until(lambda: state() == "cancelled")
        assert generator.started <= 8
        wait_until(lambda: server.engine.in_flight == 0 and server.front.budget.held == 0)


def test_a_batch_is_cancelled_by_its_id(halting: tuple[LocalServer, Halting]) -> None:
    server, generator = halting
    with begin(server, 5) as client:
        wait_until(lambda: generator.started == 1)
        requests.delete(f"{server.url}/requests/batch5", timeout=10)
        received = b""
        while b"0\r\n\r\n" not in received[-7:]:
            received += client.recv(MIB)
        assert received.count(b'"code":"cancelled"') == 5
        generator.gate.set()


def test_http_1_0_gets_lines_until_the_end(halting: tuple[LocalServer, Halting]) -> None:
    server, generator = halting
    generator.gate.set()
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        body = tar_of(FILES)
        head = f"POST /batch HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/x-tar\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: client.recv(MIB), b""))
    head, _, lines = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert sorted(json.loads(line)["index"] for line in lines.splitlines()) == [0, 1, 2]


def test_an_answer_is_whole_in_the_log_and_the_connection_goes_on(
    local: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[str]:
        return [message for record in caplog.records if "/batch" in (message := record.getMessage())]

    with requests.Session() as session, caplog.at_level("INFO", "sam2_amg.access"):
        for _ in range(2):
            answer = session.post(f"{local.url}/batch?max_masks=1", files={"image": FILES["0.png"]}, timeout=30)
            assert len(answer.content.splitlines()) == 1
        wait_until(lambda: len(lines()) == 2)
    assert all(f" {len(answer.content)} bytes" in line and "left" not in line for line in lines())


def test_too_many_batches(halting: tuple[LocalServer, Halting]) -> None:
    server, generator = halting
    threads = [begin(server, 2 + i) for i in range(4)]
    try:
        wait_until(lambda: server.engine.in_flight >= 3)
        answer = requests.post(f"{server.url}/batch", files={"image": FILES["0.png"]}, timeout=10)
        assert_error(answer, 503, "queue_full")
    finally:
        generator.gate.set()
        for client in threads:
            client.close()
