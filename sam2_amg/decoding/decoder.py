"""The server's side of decoders: starts them, asks them, and kills them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sam2_amg.config import Limits
from sam2_amg.decoding.memory import bytes_held
from sam2_amg.decoding.messages import Message, receive, send, socket_pair
from sam2_amg.decoding.shared_memory import SharedMemory, create_memory
from sam2_amg.errors import RequestError

Empty = Callable[[int], NDArray[np.uint8]]  # bytes -> memory for them

logger = logging.getLogger(__name__)
_MIB = 1 << 20
_PATIENCE = 10.0  # seconds, for a killed process to end
# glibc gives freed blocks back to the kernel and takes them again page by page, which doubles Pillow's times.
_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(64 * _MIB),
    "MALLOC_MMAP_THRESHOLD_": str(32 * _MIB),
    "MALLOC_TOP_PAD_": str(16 * _MIB),
    "OPENBLAS_NUM_THREADS": "1",  # a process with threads is not to be forked
    "OMP_NUM_THREADS": "1",
}
_PROGRAM = "import sys; sys.path[:] = {path!r}; from sam2_amg.decoding.forkserver import main; main({control}, {size})"


class DecoderDied(Exception):
    """A decoder ended before it answered; `status` is its exit code, minus a signal's number, None where unknown."""

    def __init__(self, status: int | None) -> None:
        super().__init__(describe_end(status))
        self.status = status


def describe_end(status: int | None) -> str:
    """How a process ended, for the log: -9 -> ended by SIGKILL."""
    if status is None:
        return "ended with its parent"
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def usual_memory(size: int) -> NDArray[np.uint8]:
    """An array of `size` bytes, with anything in it."""
    return np.empty(size, np.uint8)


class ForkServer:
    """The process that forks decoders; a new one where it has ended."""

    def __init__(self, limits: Limits, empty: Empty) -> None:
        """`empty` makes the memory that pixels are copied to."""
        self._limits = limits
        self._empty = empty
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._control, control = socket_pair()
        size = self._limits.max_body_mib * _MIB
        program = _PROGRAM.format(path=sys.path, control=control.fileno(), size=size)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[control.fileno()],
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the server
        )
        control.close()

    def fork(self) -> Decoder:
        """A new decoder. It is to be asked at once; it answers when it runs."""
        ours, theirs = socket_pair()
        memory = create_memory(self._limits.max_body_mib * _MIB, bytes_held(self._limits.max_pixels))
        try:
            number = next(self._numbers)
            message = [b"F%d" % number], [theirs.fileno(), memory]
            with self._lock:
                try:
                    socket.send_fds(self._control, *message)
                except ConnectionError:  # it has ended, and with it all of its decoders
                    logger.error("the fork server of the decoders ended; it is started again")
                    self.close()
                    self._start()
                    socket.send_fds(self._control, *message)
            shared = SharedMemory(memory, self._limits.max_body_mib * _MIB)
            return Decoder(self, number, ours, shared, self._limits, self._empty)
        finally:
            theirs.close()
            os.close(memory)

    def kill(self, number: int) -> None:
        """Kills a decoder by SIGKILL, unless it has ended."""
        with contextlib.suppress(OSError):  # the fork server is gone, and its decoders with it
            self._control.send(b"K%d" % number)

    def close(self) -> None:
        """Ends the process, and all decoders."""
        self._control.close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Decoder:
    """One decoder, used by one thread at a time. Where it raises DecoderDied or TimeoutError it is to be closed."""

    def __init__(
        self,
        server: ForkServer,
        number: int,
        sock: socket.socket,
        memory: SharedMemory,
        limits: Limits,
        empty: Empty,
    ) -> None:
        self._server = server
        self._number = number
        self._sock = sock
        self._memory = memory
        self._limits = limits
        self._empty = empty
        self._file_bytes = 0
        self.is_usable = True

    @property
    def has_ended(self) -> bool:
        """Whether it ended while nobody asked it: only then does an idle decoder say something."""
        self._sock.settimeout(0)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def decode(self, data: bytes, granted: int, deadline: float, stretch: str | None = None) -> NDArray[np.uint8] | int:
        """Hands it a file: uint8 RGB [H, W, 3], a copy; or, where that takes more than `granted` bytes, how many. Then
        `go_on` is to follow. Raises RequestError, DecoderDied, TimeoutError."""
        if len(data) > self._memory.file.size:
            limit = f"{self._limits.max_body_mib} MiB (--max_body_mib)"
            raise RequestError(413, "body_too_large", f"The file is over the limit of {limit}.")
        np.copyto(self._memory.file[: len(data)], np.frombuffer(data, np.uint8))
        self._file_bytes = len(data)
        request = {
            "file": len(data),
            "granted": granted,
            "stretch": stretch,
            "max_pixels": self._limits.max_pixels,
            "max_side": self._limits.max_side,
            "max_decoded_mib": self._limits.max_decoded_mib,
            "seconds": max(0.0, deadline - time.monotonic()),
        }
        answer = self._ask(request, deadline)
        return int(answer["needs"]) if "needs" in answer else self._image(answer)

    def go_on(self, granted: int, deadline: float) -> NDArray[np.uint8]:
        """Has it decode the file that needs more bytes: uint8 RGB [H, W, 3], a copy. Raises as `decode` does."""
        return self._image(self._ask({"granted": granted}, deadline))

    def skip(self) -> None:
        """Has it forget the file that needs more bytes."""
        try:
            send(self._sock, {"granted": 0})
            self._memory.give_back(self._file_bytes, 0)
        except OSError:
            self.is_usable = False

    def _image(self, answer: Message) -> NDArray[np.uint8]:
        height, width = answer["size"]
        size = bytes_held(height * width)
        if not 0 < size <= bytes_held(self._limits.max_pixels) or min(height, width) < 1:
            self.is_usable = False  # what it says cannot be trusted
            raise DecoderDied(None)
        image = self._empty(size)
        np.copyto(image, self._memory.pixels[:size])
        self._memory.give_back(self._file_bytes, size)
        return image.reshape(height, width, 3)

    def _ask(self, message: Message, deadline: float) -> Message:
        try:
            self._sock.settimeout(max(1e-3, deadline - time.monotonic()))
            send(self._sock, message)
            answer = receive(self._sock)
        except TimeoutError:
            self.is_usable = False
            raise
        except OSError:
            answer = self._last_words()
        if answer is None or "died" in answer:
            self.is_usable = False
            raise DecoderDied(answer["died"] if answer else None)
        if "error" in answer:
            self._memory.give_back(self._file_bytes, self._memory.pixels.size)  # of which anything may be written
            status, code, text = answer["error"]
            raise RequestError(int(status), str(code), str(text))
        return answer

    def _last_words(self) -> Message | None:
        """What its connection says at its end."""
        try:
            self._sock.settimeout(_PATIENCE)
            while (message := receive(self._sock)) is not None and "died" not in message:
                pass
        except OSError:  # a time-out is one
            return None
        return message

    def close(self) -> None:
        """Kills it, and waits until it has ended and its memory is free."""
        self._server.kill(self._number)
        self._last_words()
        self.is_usable = False
        self._sock.close()
        self._memory.close()
