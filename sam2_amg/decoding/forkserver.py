"""A process that forks decoders. It is small, has one thread and all that decoders import, and so has a new one ready
in milliseconds. (`multiprocessing` has such a server, too. Its children import the main program again.)

Datagrams that it takes: b"F<number>" with two descriptors, a decoder's end of its connection and its shared memory,
forks; b"K<number>" kills. Where a decoder ends, its connection says how: {"died": exit code}, -9 after SIGKILL. The
server ends with its connection, and all decoders with the server, whatever they are at.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import traceback
import warnings

from PIL import Image

from sam2_amg.decoding.messages import send
from sam2_amg.decoding.shared_memory import SharedMemory
from sam2_amg.decoding.worker import work

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(control: int, file_bytes: int) -> None:
    """Serves the connection of descriptor `control` until its other end is closed."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # of a whole process group; the server ends when it is done
        signal.signal(ignored, signal.SIG_IGN)
    Image.init()  # the readers, so that they are there when decoders are forked
    gc.freeze()  # what is there by now stays, and decoders need not look at it
    connection = socket.socket(fileno=control)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    decoders: dict[int, tuple[int, socket.socket]] = {}  # number -> process, the decoder's end of its connection
    waiting = select.poll()  # select takes no descriptor over 1023, and `control` has the server's number
    for descriptor in (control, woken):
        waiting.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if woken in ready:
            os.read(woken, 4096)
            _reap(decoders)
        if control in ready:
            data, descriptors, _, _ = socket.recv_fds(connection, 64, 2)
            if not data:
                _end(decoders)
                return
            number = int(data[1:])
            if data[:1] == b"F":
                end, memory = socket.socket(fileno=descriptors[0]), descriptors[1]
                others = [control, woken, wake, *(other.fileno() for _, other in decoders.values())]
                try:
                    decoders[number] = _fork(end, memory, file_bytes, others), end
                except OSError as error:  # too many processes, or too little memory
                    send(end, {"died": error.errno})
                    end.close()
                os.close(memory)
            elif number in decoders:
                os.kill(decoders[number][0], signal.SIGKILL)


def _fork(end: socket.socket, memory: int, file_bytes: int, others: list[int]) -> int:
    """The process of a new decoder."""
    server = os.getpid()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:  # else it ended before it could be heard
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in others:
                os.close(descriptor)
            _silence_codecs()
            work(end, SharedMemory(memory, file_bytes))
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _silence_codecs() -> None:
    """Keeps what codecs print about broken files from the server's log; Python's traces still get there."""
    warnings.simplefilter("ignore")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _end(decoders: dict[int, tuple[int, socket.socket]]) -> None:
    """Kills all decoders and waits for them, so that none is there when this process has ended."""
    signal.set_wakeup_fd(-1)
    for process, _ in decoders.values():
        os.kill(process, signal.SIGKILL)
    for process, _ in decoders.values():
        os.waitpid(process, 0)


def _reap(decoders: dict[int, tuple[int, socket.socket]]) -> None:
    """Tells of decoders that have ended."""
    for number, (process, end) in list(decoders.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):  # nobody listens any longer
                send(end, {"died": os.waitstatus_to_exitcode(status)})
            end.close()
            del decoders[number]
