"""What is measured stays when somebody ends a long measurement."""

from __future__ import annotations

import os
import signal

import pytest

from bench.harness import interrupts
from bench.harness.interrupts import interruptible, stopping_early


@pytest.fixture(autouse=True)
def nothing_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_last", float("-inf"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_block_alone(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    done = []
    with stopping_early():
        done.append(1)
        os.kill(os.getpid(), number)
        done.append(2)
    assert done == [1]
    assert "what has been measured is kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_comes_twice_is_heard_once() -> None:
    """`timeout` sends it to the program, and then to its group: maybe while the program writes what it has."""
    written = []
    with interruptible():
        with stopping_early():
            os.kill(os.getpid(), signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        written.append(1)
    assert written == [1]


def test_a_later_signal_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_AGAIN", 0.0)
    with interruptible():
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)


def test_other_ends_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), stopping_early():
        raise ValueError("wrong")
    assert capsys.readouterr().err == ""
