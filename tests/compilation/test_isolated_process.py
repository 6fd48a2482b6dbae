"""Calls in processes of their own: answers, errors, and crashes that stay there."""

from __future__ import annotations

import os
import signal

import pytest

from sam2_amg.compilation.isolated_process import ProcessDied, run_in_subprocess
from sam2_amg.errors import RequestError, StartupError


def crash(how: signal.Signals) -> None:
    os.kill(os.getpid(), how)


def leave(status: int) -> None:
    os._exit(status)


def refuse(message: str) -> None:
    raise StartupError(message)


class Unreadable(Exception):
    """An error whose pickle cannot be read: unpickling gives the message alone."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)


def fail_unreadably() -> None:
    raise Unreadable(400, "nothing there")


def refuse_a_request() -> None:
    raise RequestError(503, "queue_full", "try again", retry_after=2)


def test_an_answer_comes_from_another_process() -> None:
    assert run_in_subprocess(os.getpid) != os.getpid()
    assert run_in_subprocess(divmod, 7, 3) == (2, 1)


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(StartupError, match="no such file"):
        run_in_subprocess(refuse, "no such file")
    with pytest.raises(RequestError) as caught:
        run_in_subprocess(refuse_a_request)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "queue_full", 2)


def test_an_error_that_cannot_be_unpickled_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"Unreadable.* cannot be pickled"):
        run_in_subprocess(fail_unreadably)


def test_a_crash_is_told() -> None:
    with pytest.raises(ProcessDied, match="ended by SIGSEGV"):
        run_in_subprocess(crash, signal.SIGSEGV)
    with pytest.raises(ProcessDied, match="exit status 3"):
        run_in_subprocess(leave, 3)
