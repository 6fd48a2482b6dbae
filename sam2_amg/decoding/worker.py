"""A decoder: a process that decodes one image at a time, and knows nothing else.

    server                               decoder
    {"file": n, "granted": bytes,    ->                         the file lies in the shared memory
     "stretch": name or null ..}
                                     <-  {"needs": bytes}       if it needs more; or {"error": [status, code, text]}
    {"granted": bytes}               ->                         0 where somebody else takes them
                                     <-  {"size": [h, w]}       the pixels lie in the shared memory; or {"error": ...}

Its address space and its processor time are bounded for each image.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam2_amg.config import Limits
from sam2_amg.decoding.decode import Inspected, decode_inspected, inspect_image
from sam2_amg.decoding.messages import Message, error_message, receive, send
from sam2_amg.decoding.refusals import too_much_memory
from sam2_amg.decoding.shared_memory import SharedMemory
from sam2_amg.errors import RequestError

_FILES = 3  # copies of a file
_SPARE = 96 << 20  # bytes of address space beside what an image needs
_TRIMMED = 64 << 20  # bytes needed by an image after which free memory goes back to the kernel at once


def work(sock: socket.socket, memory: SharedMemory) -> None:
    """Decodes images until the server is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (request := receive(sock)) is not None:
        if _answer(sock, memory, request) >= _TRIMMED:
            _trim()


def _answer(sock: socket.socket, memory: SharedMemory, request: Message) -> int:
    """Decodes one image, of which nothing is left then; the bytes that it may have taken."""
    try:
        with _bounded(max(request["granted"], _FILES * request["file"]), request):
            found = _inspect(memory, request)
            if found.needs <= request["granted"]:
                send(sock, {"size": _decode(found, memory, request)})
                return found.needs
        send(sock, {"needs": found.needs})
        if (receive(sock) or request)["granted"] < found.needs:
            return 0
        with _bounded(found.needs, request):
            send(sock, {"size": _decode(found, memory, request)})
        return found.needs
    except RequestError as error:
        send(sock, error_message(error.status, error.code, error.message))
        return _TRIMMED  # a refused file may have taken as much


def _inspect(memory: SharedMemory, request: Message) -> Inspected:
    """Raises RequestError."""
    limits = Limits(max_pixels=request["max_pixels"], max_side=request["max_side"])
    return inspect_image(memory.file[: request["file"]].tobytes(), limits)


def _decode(found: Inspected, memory: SharedMemory, request: Message) -> tuple[int, int]:
    """Decodes into the shared memory; height and width. Raises RequestError."""
    height, width, _ = decode_inspected(found, memory.pixels, request["stretch"]).shape
    return height, width


@contextmanager
def _bounded(count: int, request: Message) -> Iterator[None]:
    """Lets this process take `count` bytes more, and the processor for the seconds that are left. Raises RequestError
    too_much_memory where that is not enough."""
    try:
        bound(count + _SPARE, request["seconds"])
        yield
    except MemoryError as error:
        raise too_much_memory("more memory than images of its kind do", request["max_decoded_mib"]) from error


def bound(count: int, seconds: float) -> None:
    """Lets this process take `count` bytes of address space more, and processor time of `seconds` more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + count, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 1, resource.RLIM_INFINITY))


def _trim() -> None:
    """Gives free memory back to the kernel: images lie in cycles, and glibc, unlike others, keeps what is freed."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
