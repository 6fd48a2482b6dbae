"""Decoders as processes: their answers, their deadlines, their deaths, and the bytes that they share."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from decoder_processes import processes
from helpers import ROOT, drawn_image, wait_until
from numpy.typing import NDArray
from PIL import Image

from bench.fuzz import fuzz
from bench.harness.image_bombs import black_png, bombs, encoded
from bench.harness.vitals import children, is_there, kibibytes
from sam2_amg.config import Limits
from sam2_amg.decoding import decoder
from sam2_amg.decoding.decode import decode_image
from sam2_amg.decoding.messages import Message, send
from sam2_amg.decoding.pool import DecoderPool
from sam2_amg.decoding.shared_memory import create_memory
from sam2_amg.demo import EXAMPLE, PHOTOGRAPHS
from sam2_amg.errors import RequestError

PNG = encoded(drawn_image(40, 60), "PNG")
DOG = (PHOTOGRAPHS / "dog.jpg").read_bytes()


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(Limits(decoders=2)) as decoders:
        yield decoders


@pytest.fixture
def single() -> Iterator[DecoderPool]:
    with DecoderPool(Limits(decoders=1)) as decoders:
        yield decoders


def decode(pool: DecoderPool, data: bytes, seconds: float = 20) -> NDArray[np.uint8]:
    with pool.decoded(data, time.monotonic() + seconds) as image:
        return image


def error_of(pool: DecoderPool, data: bytes, seconds: float = 20) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(pool, data, seconds)
    return caught.value


def stop_all(pool: DecoderPool) -> list[int]:
    """Stops the decoders: each is busy for as long as a test likes."""
    for _ in range(pool.size):
        decode(pool, PNG)
    for process in processes(pool):
        os.kill(process, signal.SIGSTOP)
    return processes(pool)


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What decoders were told."""
    messages: list[Message] = []

    def note(sock: socket.socket, message: Message) -> None:
        send(sock, message)
        messages.append(message)

    monkeypatch.setattr(decoder, "send", note)
    return messages


def in_background(pool: DecoderPool, data: bytes, sent: list[Message], seconds: float = 20) -> Future:
    """Begins to decode, and returns when a decoder that is stopped has been asked."""
    idle, before = len(pool._idle), len(sent)
    answer: Future = Future()

    def run() -> None:
        try:
            answer.set_result(decode(pool, data, seconds))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run).start()
    wait_until(lambda: len(sent) == before + 1)
    assert len(pool._idle) == idle - 1
    return answer


def test_pixels_are_those_of_decoding_in_this_process(pool: DecoderPool) -> None:
    files = [path.read_bytes() for path in PHOTOGRAPHS.glob("*.jpg")]
    files += [encoded(drawn_image(30 + i, 50, i), kind) for i, kind in enumerate(("PNG", "WEBP", "GIF", "BMP", "TIFF"))]
    exif = Image.Exif()
    exif[0x0112] = 8
    files += [encoded(drawn_image(1, 1), "PNG"), encoded(drawn_image(9, 17), "JPEG", exif=exif)]
    with ThreadPoolExecutor(6) as threads:
        for data, image in zip(files * 3, threads.map(lambda data: decode(pool, data), files * 3), strict=True):
            assert np.array_equal(image, decode_image(data, Limits()))
            assert image.base is not None
            assert image.base.flags.owndata  # not what is shared with a decoder
            assert image.flags.writeable
    assert pool.budget.taken == 0


def test_bombs_are_answered_in_time_and_photographs_beside_them_are_right(pool: DecoderPool) -> None:
    expected = decode_image(DOG, Limits())
    with ThreadPoolExecutor(6) as threads:
        for name, (data, statuses) in bombs(2048).items():
            begun = time.monotonic()
            dogs = [threads.submit(decode, pool, DOG) for _ in range(2)]
            try:
                status = 200 if decode(pool, data, 8).shape[2] == 3 else 0
            except RequestError as error:
                status = error.status
            assert status in statuses, name
            assert time.monotonic() - begun < 9, name
            assert all(np.array_equal(dog.result(), expected) for dog in dogs), name


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (signal.SIGKILL, 500, "internal_error"),  # by the kernel, for lack of memory
        (signal.SIGSEGV, 400, "truncated_image"),
        (signal.SIGABRT, 400, "truncated_image"),
        (signal.SIGXCPU, 504, "timeout"),
    ],
)
def test_a_decoder_that_dies_harms_no_other_request(
    pool: DecoderPool, sent: list[Message], number: signal.Signals, status: int, code: str
) -> None:
    first, second = stop_all(pool)
    answers = [in_background(pool, DOG, sent), in_background(pool, DOG, sent)]
    assert pool._idle == []  # both are at work
    os.kill(first, number)
    for process in (first, second):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    failed = [answer.exception(20) for answer in answers]
    (error,) = [each for each in failed if each is not None]
    assert isinstance(error, RequestError)
    assert (error.status, error.code) == (status, code)
    (right,) = [answer.result() for answer in answers if answer.exception() is None]
    assert np.array_equal(right, decode_image(DOG, Limits()))
    assert first not in processes(pool)
    assert second in processes(pool)
    stop_all(pool)  # decodes with both
    assert pool.budget.taken == 0


def test_a_decoder_that_dies_while_it_is_idle_harms_none(single: DecoderPool) -> None:
    decode(single, PNG)
    (process,) = processes(single)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: single._idle[0].has_ended)
    assert decode(single, PNG).shape == (40, 60, 3)
    assert processes(single) != [process]


def test_a_late_decoder_is_killed_and_replaced(single: DecoderPool) -> None:
    (process,) = stop_all(single)
    begun = time.monotonic()
    error = error_of(single, PNG, 0.3)
    assert (error.status, error.code) == (504, "timeout")
    assert "--decode_timeout" in error.message
    assert 0.3 <= time.monotonic() - begun < 2
    assert not is_there(process)
    assert decode(single, PNG).shape == (40, 60, 3)


def test_a_decoder_that_is_late_within_a_codec_is_killed(single: DecoderPool) -> None:
    data = black_png(4096, 16, 6, 8)
    (process,) = processes(single)
    begun = time.monotonic()
    assert decode(single, data).shape == (4096, 4096, 3)
    seconds = time.monotonic() - begun
    assert error_of(single, data, seconds / 4).code == "timeout"
    assert time.monotonic() - begun < 2 * seconds + 2
    assert processes(single) != [process]
    assert single.budget.taken == 0


def test_whoever_waits_for_a_decoder_in_vain_is_told_when_to_come_again(
    single: DecoderPool, sent: list[Message]
) -> None:
    (process,) = stop_all(single)
    busy = in_background(single, PNG, sent)
    error = error_of(single, PNG, 0.2)
    assert (error.status, error.code, error.retry_after) == (503, "decoders_busy", 2)
    assert "--decoders" in error.message
    os.kill(process, signal.SIGCONT)
    assert busy.result(20).shape == (40, 60, 3)


def test_decoded_bytes_are_bounded() -> None:
    large = encoded(Image.new("RGB", (2000, 1500)), "JPEG")  # takes 28 MiB while it is decoded, 8.6 after that
    with DecoderPool(Limits(decoders=2, max_decoded_mib=36)) as pool:
        with pool.decoded(large) as image:
            assert pool.budget.taken == image.nbytes == 9_000_000
            error = error_of(pool, large, 0.3)
            assert (error.status, error.code, error.retry_after) == (503, "decoders_busy", 5)
            assert np.array_equal(decode(pool, PNG), drawn_image(40, 60))  # a small one finds room
            assert len(pool._idle) == 2  # none of them waits for bytes
            waiting = threading.Timer(0.1, lambda: answers.append(decode(pool, large)))
            answers: list[NDArray[np.uint8]] = []
            waiting.start()
            time.sleep(0.3)
            assert not answers
        waiting.join(20)
        assert len(answers) == 1
        assert pool.budget.taken == 0
        error = error_of(pool, encoded(Image.new("RGB", (2400, 1800)), "JPEG"))
        assert (error.status, error.code) == (413, "too_much_memory")
        assert "--max_decoded_mib" in error.message
        assert decode(pool, large).shape == (1500, 2000, 3)


def test_limits_hold_in_decoders_too() -> None:
    with DecoderPool(Limits(decoders=1, max_pixels=40 * 60 - 1, max_body_mib=1)) as pool:
        assert error_of(pool, PNG).code == "too_many_pixels"
        assert error_of(pool, bytes(2 << 20)).code == "body_too_large"
        assert error_of(pool, b"text").code == "not_an_image"
        assert decode(pool, encoded(drawn_image(40, 59), "PNG")).shape == (40, 59, 3)


def open_files(process: int | str) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def touched(process: int) -> int:
    """KiB of its shared buffer that a decoder has used."""
    lines = Path(f"/proc/{process}/smaps").read_text().splitlines()
    begins = [index for index, line in enumerate(lines) if "memfd:decoder" in line]
    sizes = [line for index in begins for line in lines[index : index + 8] if line.startswith("Rss:")]
    return sum(int(line.split()[1]) for line in sizes)


def test_warming_up_reaches_every_decoder() -> None:
    with DecoderPool(Limits(decoders=2)) as pool:
        decode(pool, PNG)
        assert min(map(touched, processes(pool))) < 1000
        pool.warm_up(EXAMPLE.read_bytes())
        assert min(map(touched, processes(pool))) >= 534 * 800 * 3 // 1024
        decode(pool, PNG)


def test_a_refused_file_leaves_no_memory_behind() -> None:
    with DecoderPool(Limits(max_pixels=4_000_000, decoders=1)) as pool:
        for photograph in PHOTOGRAPHS.glob("*.jpg"):
            decode(pool, photograph.read_bytes())
        (process,) = processes(pool)
        held = kibibytes(f"/proc/{process}/smaps_rollup", "Pss_Anon")
        assert error_of(pool, black_png(4096, 8, 0, 1)).status == 413
        wait_until(lambda: kibibytes(f"/proc/{process}/smaps_rollup", "Pss_Anon") < held)


def test_files_that_fail_leave_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a picture, or a file that is none, is as large as what stays of those that are right."""
    shared: list[int] = []  # descriptors of the memory that is shared with the decoder

    def keep(file_bytes: int, pixel_bytes: int) -> int:
        memory = create_memory(file_bytes, pixel_bytes)
        shared.append(os.dup(memory))
        return memory

    monkeypatch.setattr(decoder, "create_memory", keep)
    large = np.zeros((5000, 5000, 3), np.uint8)
    cut = [data[: len(data) * 9 // 10] for data in (encoded(large, "PNG"), encoded(large, "JPEG"))]
    with DecoderPool(Limits(decoders=1)) as pool:
        decode(pool, DOG)
        (process,), (memory,) = processes(pool), shared
        held = kibibytes(f"/proc/{process}/smaps_rollup", "Pss_Anon")
        for data in (*cut, os.urandom(60 << 20)):
            error_of(pool, data)
            wait_until(lambda: kibibytes(f"/proc/{process}/smaps_rollup", "Pss_Anon") < held + (8 << 10))
            assert os.fstat(memory).st_blocks * 512 <= 2 * (32 << 20) + (1 << 20)
    os.close(memory)


def shared_buffers() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:decoder")


def test_nothing_is_left_behind() -> None:
    before = open_files("self"), children(os.getpid()), shared_buffers()
    with DecoderPool(Limits(decoders=1)) as pool:
        stop_all(pool)
        for process in processes(pool):
            os.kill(process, signal.SIGCONT)
        everybody = [os.getpid(), pool._server.process.pid, *processes(pool)]
        opened = [open_files(process) for process in everybody]
        for i in range(200):
            if i % 20 == 19:
                error_of(pool, PNG[:60])
            elif i % 50 == 0:
                os.kill(processes(pool)[0], signal.SIGKILL)
                wait_until(lambda: pool._idle[0].has_ended)
                decode(pool, PNG)
            else:
                decode(pool, PNG)
        everybody = [os.getpid(), pool._server.process.pid, *processes(pool)]
        assert [open_files(process) for process in everybody] == opened
    assert not any(is_there(process) for process in everybody[1:])
    assert (open_files("self"), children(os.getpid()), shared_buffers()) == before
    with pytest.raises(RequestError, match="shutting down"):
        decode(pool, PNG)


def test_requests_fail_when_the_pool_is_closed_under_them(single: DecoderPool, sent: list[Message]) -> None:
    stop_all(single)
    busy = in_background(single, PNG, sent)
    single.close()
    error = busy.exception(20)
    assert isinstance(error, RequestError)
    assert (error.status, error.code) == (503, "shutting_down")


def test_a_fork_server_that_dies_is_started_again(single: DecoderPool, sent: list[Message]) -> None:
    (process,) = stop_all(single)
    busy = in_background(single, PNG, sent)
    single._server.process.kill()
    error = busy.exception(20)
    assert isinstance(error, RequestError)
    assert (error.status, error.code) == (500, "internal_error")
    wait_until(lambda: not is_there(process))
    assert decode(single, PNG).shape == (40, 60, 3)


def test_a_fork_server_is_started_again_beside_many_descriptors(single: DecoderPool) -> None:
    """Its connection has a number of more than 1023 then."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, before[0]), before[1]))
        for _ in range(1100):
            stack.enter_context(socket.socket())
        single._server.process.kill()
        single._server.process.wait()
        with suppress(RequestError):  # the first may hear of its end
            decode(single, PNG)
        assert decode(single, PNG).shape == (40, 60, 3)


def test_decoders_end_with_the_server_even_where_it_is_killed() -> None:
    program = (
        "import os, signal, sys, time\n"
        "from bench.harness.vitals import children\n"
        "from sam2_amg.config import Limits; from sam2_amg.decoding.pool import DecoderPool\n"
        "pool = DecoderPool(Limits(decoders=2)); fork_server = pool._server.process.pid\n"
        "while len(children(fork_server)) < 2: time.sleep(0.01)\n"
        "os.kill(children(fork_server)[0], signal.SIGSTOP)\n"  # it would not see the end of its connection
        "print(fork_server, *children(fork_server), flush=True); time.sleep(300)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        started = [int(word) for word in server.stdout.readline().split()]
        assert len(started) == 3
        assert all(is_there(process) for process in started)
        server.kill()
    wait_until(lambda: not any(is_there(process) for process in started), seconds=10)


def test_mutated_files_raise_nothing_foreign(pool: DecoderPool) -> None:
    found = fuzz(pool, 300, seed=0)
    assert sum(found.values()) == 300
    assert found["decoded"] >= 20
    assert sum(count for name, count in found.items() if name != "decoded") >= 100
    assert found.keys() <= {"decoded", "truncated_image", "not_an_image", "unsupported_pixels", "too_many_pixels"} | {
        "too_complex",
        "too_much_memory",
    }


def test_a_decoder_that_takes_more_memory_than_it_said_is_stopped() -> None:
    """In a process of its own, as decoders are."""
    program = (
        "import numpy as np; from sam2_amg.decoding.worker import bound\n"
        "bound(64 << 20, 60); np.empty(32 << 20, np.uint8)\n"
        "try: np.empty(128 << 20, np.uint8)\n"
        "except MemoryError: print('stopped')"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "stopped\n"


def test_codecs_do_not_write_into_the_log() -> None:
    """libtiff prints, and Pillow warns, about a file whose strip is broken."""
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from bench.harness.image_bombs import encoded; from PIL import Image\n"
        "from sam2_amg.config import Limits; from sam2_amg.errors import RequestError\n"
        "from sam2_amg.decoding.decode import decode_image; from sam2_amg.decoding.pool import DecoderPool\n"
        "data = encoded(Image.effect_noise((64, 64), 99), 'TIFF', compression='tiff_lzw')\n"
        "data = data[:8] + bytes(200) + data[208:]\n"
        "if sys.argv[1] == 'pool':\n"
        "    with DecoderPool(Limits(decoders=1)) as pool:\n"
        "        try: pool.decoded(data).__enter__()\n"
        "        except RequestError as error: print(error.code)\n"
        "else:\n"
        "    try: decode_image(data, Limits())\n"
        "    except RequestError as error: print(error.code)\n"
    )
    printed = []
    for place in ("here", "pool"):
        command = [sys.executable, "-c", program, place]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert ended.stdout == "truncated_image\n"
        printed.append([line for line in ended.stderr.splitlines() if "sam2_amg" not in line])
    assert printed[0]
    assert printed[1] == []
