"""What is measured stays when somebody ends a long measurement."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from bench.harness.interrupts import stopping_early


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
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


def test_other_ends_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), stopping_early():
        raise ValueError("wrong")
    assert capsys.readouterr().err == ""
