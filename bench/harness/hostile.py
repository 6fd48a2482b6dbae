"""Clients that harm a server, by accident or by intent, one kind a function. Each ends by itself within seconds."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from bench.harness.image_bombs import bombs, encoded

Address = tuple[str, int]
_CLIENTS = 20  # connections that a kind opens at a time
_BOMB_SIDE = 4096  # pixels
_HOLD = 8.0  # seconds for which they stay


def multipart(data: bytes) -> bytes:
    """A form with one file in the field `image`, its boundary `b`."""
    return b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + data + b"\r\n--b--\r\n"


def head(path: str, length: int) -> bytes:
    """The head of an upload of so many bytes."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {length}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _connect(address: Address, data: bytes, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(5)
    with contextlib.suppress(OSError):
        client.connect(address)
        client.sendall(data)
    return client


def _hold(clients: Sequence[socket.socket], seconds: float | None = None) -> None:
    """Keeps connections open, for `_HOLD` seconds unless told how long."""
    time.sleep(_HOLD if seconds is None else seconds)
    for client in clients:
        client.close()


def unfinished(address: Address) -> None:
    """Uploads of 60 MB that stop after 540 KiB."""
    _hold([_connect(address, head("/upload_rle", 60_000_000) + b"A" * 540 * 1024) for _ in range(_CLIENTS)])


def unread(address: Address) -> None:
    """Clients that ask much and never read."""
    data = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5
    _hold([_connect(address, data, receive_buffer=4096) for _ in range(_CLIENTS)])


def idle(address: Address) -> None:
    """Connections that say nothing."""
    _hold([_connect(address, b"") for _ in range(10 * _CLIENTS)])


def trickling(address: Address) -> None:
    """Uploads of which a byte a second arrives."""
    clients = [_connect(address, head("/upload_rle", 1_000_000)) for _ in range(_CLIENTS)]
    for _ in range(round(_HOLD)):
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"A")
        time.sleep(1)
    _hold(clients, 0)


def gone(address: Address, photograph: bytes) -> None:
    """Clients that leave while their photographs wait: on a GPU that is soon over."""
    body = multipart(photograph)
    _hold([_connect(address, head("/upload_rle", len(body)) + body) for _ in range(3)], 0.02)


def malformed(address: Address) -> None:
    """Bytes that are no HTTP, or HTTP that can be read in two ways."""
    both = b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"
    data = [
        b"NONSENSE\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\n" + both,
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        random.randbytes(10_000),
    ]
    _hold([_connect(address, one) for one in data * 4], 1)


def broken_files(address: Address, photograph: bytes) -> None:
    """Photographs with bytes changed, and their end cut off."""
    for _ in range(10):
        data = bytearray(photograph[: random.randint(1, len(photograph) * 3 // 4)])
        for _ in range(random.randint(0, 20)):
            data[random.randrange(len(data))] = random.randrange(256)
        body = multipart(bytes(data))
        client = _connect(address, head("/upload_rle", len(body)) + body)
        with contextlib.suppress(OSError):
            client.settimeout(60)
            client.recv(65536)
        client.close()


def bombs_at_once(address: Address, files: Iterator[bytes]) -> None:
    """Files that are small to send and dear to decode, four of a kind at once."""
    body = multipart(next(files))
    clients = [_connect(address, head("/upload_rle", len(body)) + body) for _ in range(4)]
    for client in clients:
        with contextlib.suppress(OSError):
            client.settimeout(60)
            client.recv(65536)
    _hold(clients, 0)


def kinds(photograph: bytes) -> dict[str, Callable[[Address], None]]:
    """All kinds, by name. Those that leave do so with a small photograph: one that is begun is finished.

    Files are made here, once: the process that attacks often times the server, too.
    """
    with Image.open(io.BytesIO(photograph)) as image:
        small = encoded(image.resize((160, 120)), "JPEG")
    dear = bombs(_BOMB_SIDE)
    del dear["exif"]  # a good photograph, after 59 MB of nothing
    files = itertools.cycle([data for data, _ in dear.values()])  # so that each kind comes soon
    return {
        "unfinished": unfinished,
        "unread": unread,
        "idle": idle,
        "trickling": trickling,
        "gone": lambda address: gone(address, small),
        "malformed": malformed,
        "broken files": lambda address: broken_files(address, photograph),
        "bombs": lambda address: bombs_at_once(address, files),
    }
