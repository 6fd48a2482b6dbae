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


def refuse_a_request() -> None:
    raise RequestError(400, "empty_body", "nothing there")


def test_an_answer_comes_from_another_process() -> None:
    assert run_in_subprocess(os.getpid) != os.getpid()
    assert run_in_subprocess(divmod, 7, 3) == (2, 1)


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(StartupError, match="no such file"):
        run_in_subprocess(refuse, "no such file")
    with pytest.raises(RuntimeError, match=r"RequestError.* cannot be pickled"):
        run_in_subprocess(refuse_a_request)  # its pickle cannot be read


def test_a_crash_is_told() -> None:
    with pytest.raises(ProcessDied, match="ended by SIGSEGV"):
        run_in_subprocess(crash, signal.SIGSEGV)
    with pytest.raises(ProcessDied, match="exit status 3"):
        run_in_subprocess(leave, 3)
